"""What the columns of all tables share: JSON, long text, and the names of constraints."""

from typing import Any

from sqlalchemy import JSON, Column, MetaData, Text
from sqlmodel import Field, SQLModel
from typing_extensions import TypedDict  # pydantic asks for this one below Python 3.12

SQLModel.metadata.naming_convention = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
).naming_convention


class ProcessIdentity(TypedDict):
    """A process, told apart from all others that ever were: ids are used again, and every container counts its own."""

    pid: int
    started: float
    """Seconds since the host's boot."""
    boot_id: str
    pid_namespace: str


def json_column(default: Any) -> Any:
    """A JSON value; `default` makes the one that a new row starts with."""
    return Field(default_factory=default, sa_column=Column(JSON, nullable=False))


def text_column() -> Any:
    """Text of any length, empty unless it is given."""
    return Field(default="", sa_column=Column(Text, nullable=False, server_default=""))
