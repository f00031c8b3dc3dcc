"""Views of the list of runs that people keep."""

import time

from sqlmodel import Field, SQLModel

from server.db.ids import new_id


class SavedView(SQLModel, table=True):
    """A name for a query string of `/runs`."""

    __tablename__ = "saved_view"

    id: str = Field(default_factory=new_id, primary_key=True, max_length=26)
    name: str = Field(max_length=60, unique=True)
    query: str = Field(max_length=2000)
    created_at: float = Field(default_factory=time.time)
