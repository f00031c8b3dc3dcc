"""What the charts of several runs know of each run: compare.js."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlmodel import Session

from server.db.tables import Run
from server.services import lineage, marks

MARKED_RUNS = 5
"""Of so many runs the charts show checkpoints, attempts and warnings; the signs of more would hide one another."""
OWN_KINDS = ("checkpoint", "warning", "attempt")


@dataclass(frozen=True)
class Curve:
    """A run as its charts draw it."""

    id: str
    name: str
    keys: list[str]
    """Its series."""
    tokens_per_step: int
    origin: float
    """Unix time at which it began."""
    before: dict[str, int]
    """Steps and tokens that its parents had trained, where these are drawn too."""
    branch: dict[str, Any] | None
    """The run and the step that it was forked from, likewise."""
    marks: list[dict[str, Any]]

    @property
    def kinds(self) -> set[str]:
        """The kinds of marks that it has."""
        return {mark["kind"] for mark in self.marks} | ({"branch"} if self.branch else set())


def mark_kinds(curves: Sequence[Curve], *, are_live: bool) -> list[str]:
    """The kinds of marks that the charts have, or may come to have while runs train."""
    may_come = OWN_KINDS if are_live and len(curves) <= MARKED_RUNS else ()
    found = set(may_come).union(*(curve.kinds for curve in curves))
    return [kind for kind in (*OWN_KINDS, "branch") if kind in found]


def curves_of(session: Session, runs: Sequence[Run]) -> list[Curve]:
    """One curve per run."""
    branches, before = lineage.branches(runs), lineage.before(runs)
    ids = [run.id for run in runs]
    origins = marks.origins(session, ids)
    marked = marks.marks(session, ids if len(runs) <= MARKED_RUNS else [])
    return [
        Curve(
            id=run.id,
            name=run.name,
            keys=sorted(run.latest),
            tokens_per_step=run.tokens_per_step,
            origin=origins[run.id],
            before=before[run.id]._asdict(),
            branch=branches[run.id]._asdict() if run.id in branches else None,
            marks=[mark._asdict() for mark in marked.get(run.id, [])],
        )
        for run in runs
    ]
