"""Rows by the ids that addresses carry."""

from typing import TypeVar

from sqlmodel import Session, SQLModel

from server.errors import NotFoundError

T = TypeVar("T", bound=SQLModel)


def get_row(session: Session, table: type[T], row_id: str, noun: str) -> T:
    """The row with this id. Raises NotFoundError, which calls it by `noun`; what can be no id is not looked up:
    PostgreSQL refuses some texts.
    """
    row = session.get(table, row_id) if len(row_id) <= 26 and row_id.isalnum() else None
    if row is None:
        raise NotFoundError(f"There is no such {noun}.")
    return row
