"""Rows by the ids that addresses carry."""

from typing import TypeVar

from sqlmodel import Session, SQLModel

from server.errors import NotFoundError

T = TypeVar("T", bound=SQLModel)


def get_row(session: Session, table: type[T], row_id: str, noun: str, *, locks: bool = False) -> T:
    """The row with this id. Raises NotFoundError, which calls it by `noun`; what can be no id is not looked up:
    PostgreSQL refuses some texts. With `locks` nobody else changes it until the transaction ends.
    """
    can_be = len(row_id) <= 26 and row_id.isalnum()
    row = session.get(table, row_id, with_for_update=locks or None) if can_be else None
    if row is None:
        raise NotFoundError(f"There is no such {noun}.")
    return row
