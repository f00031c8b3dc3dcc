"""What the address of the page Compare says: which runs, over which axes, in what order."""

from dataclasses import dataclass, replace
from typing import Annotated
from urllib.parse import urlencode

from fastapi import Query

from server.services.compare import OBJECTIVES


@dataclass(frozen=True)
class CompareState:
    """The query string of `/compare`."""

    run: tuple[str, ...] = ()
    """Ids, in the order in which the runs are numbered and coloured."""
    across: str = OBJECTIVES[0]
    up: str = OBJECTIVES[1]
    """The axes of the Pareto board."""
    fields: str = "different"
    """`all` lists the fields of the configuration in which the runs agree, too."""
    sort: str = ""
    """The metric by which the tables order the runs, best first; with `-` before it worst first."""

    @property
    def url(self) -> str:
        """The address that brings one back here."""
        return "/compare?" + urlencode({name: value for name, value in vars(self).items() if value}, doseq=True)

    def sorted_by(self, metric: str) -> "CompareState":
        """Ordered by a metric; the other way round when it is already; an empty one leaves the runs as chosen."""
        return replace(self, sort=f"-{metric}" if metric and self.sort == metric else metric)

    def showing(self, fields: str) -> "CompareState":
        return replace(self, fields=fields)


def read_compare_state(
    run: Annotated[list[str], Query(max_length=1000)] = [],  # noqa: B006 - FastAPI copies it
    across: str = "",
    up: str = "",
    fields: str = "",
    sort: Annotated[str, Query(max_length=100)] = "",
) -> CompareState:
    """A dependency. A run that is named twice counts once; what is no axis is the usual one."""
    return CompareState(
        tuple(dict.fromkeys(run)),
        across if across in OBJECTIVES else OBJECTIVES[0],
        up if up in OBJECTIVES else OBJECTIVES[1],
        "all" if fields == "all" else "different",
        sort,
    )
