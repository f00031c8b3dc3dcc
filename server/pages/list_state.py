"""What the address of the list of runs says: which runs, in what order, with which columns."""

from dataclasses import dataclass, replace
from typing import Annotated
from urllib.parse import urlencode

from fastapi import Query

from server.db.tables import RunState
from server.services.run_fields import NEWEST_FIRST
from server.services.run_list import MAX_QUERY


@dataclass(frozen=True)
class ListState:
    """The query string of `/runs`; empty parts are what nobody has asked for."""

    q: str = ""
    state: str = ""
    sort: str = ""
    fields: str = ""
    cursor: str = ""

    @property
    def query(self) -> str:
        """The query string that brings one back here."""
        return urlencode({name: value for name, value in vars(self).items() if value})

    @property
    def url(self) -> str:
        return f"/runs?{self.query}" if self.query else "/runs"

    @property
    def view(self) -> "ListState":
        """The same without the place in the list."""
        return replace(self, cursor="")

    @property
    def is_plain(self) -> bool:
        """Whether all runs are shown from the newest on, whatever the columns: a new run belongs on top."""
        return not (self.q or self.state or self.cursor) and self.order == NEWEST_FIRST

    @property
    def order(self) -> str:
        return self.sort or NEWEST_FIRST

    def sorted_by(self, name: str, *, descending_first: bool) -> "ListState":
        """Sorted by a field, or the other way round when it is already."""
        first, second = (f"-{name}", name) if descending_first else (name, f"-{name}")
        return replace(self.view, sort=second if self.order == first else first)

    def at(self, cursor: str) -> "ListState":
        return replace(self, cursor=cursor)


async def read_list_state(
    q: Annotated[str, Query(max_length=MAX_QUERY)] = "",
    state: str = "",
    sort: Annotated[str, Query(max_length=100)] = "",
    fields: Annotated[list[str], Query(max_length=200)] = [],  # noqa: B006 - FastAPI copies it
    cursor: Annotated[str, Query(max_length=2000)] = "",
) -> ListState:
    """A dependency. `fields` may come once with commas, or several times as the page Columns sends it."""
    names = ",".join(fields)
    if len(names) > MAX_QUERY:
        names = names[: MAX_QUERY + 1].rpartition(",")[0]  # no half of a name
    return ListState(q.strip(), state if state in set(RunState) else "", sort, names, cursor)
