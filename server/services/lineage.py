"""Where runs come from, and which runs came of them."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

from sqlalchemy import func, or_
from sqlmodel import Session, col, select

from server.db.tables import Run, Sweep

_MAX_ANCESTORS = 20
_MAX_CHILDREN = 20
How = Literal["retry", "fork", "clone"]


class Kin(NamedTuple):
    """A run, how it came of its parent, and those that came of it."""

    run: Run
    how: How | None
    children: list["Kin"]


class Family(NamedTuple):
    """A run with those that it comes from, in one line, and those that came of it."""

    root: Kin
    sweep: Sweep | None
    """What the root belongs to."""
    num_swept: int
    """Runs of the sweep."""
    has_more: bool
    """Whether there are more children than these."""

    @property
    def runs(self) -> list[Run]:
        """All of them, the root first."""
        return _flat(self.root)


def family(session: Session, run: Run) -> Family:
    """A run's parents up to the first, its children, and the sweep that it began in."""
    found = children(session, run.id, limit=_MAX_CHILDREN + 1)
    node = Kin(run, how_made(run), [Kin(child, how_made(child), []) for child in found[:_MAX_CHILDREN]])
    for _ in range(_MAX_ANCESTORS):
        above = parent(session, node.run)
        if above is None:
            break
        node = Kin(above, how_made(above), [node])
    sweep = session.get(Sweep, node.run.sweep_id) if node.run.sweep_id else None
    swept = select(func.count()).where(Run.sweep_id == node.run.sweep_id) if sweep else None
    num_swept = session.exec(swept).one() if swept is not None else 0
    return Family(node, sweep, num_swept, has_more=len(found) > _MAX_CHILDREN)


def how_made(run: Run) -> How | None:
    """How a run came of another one, if it did."""
    return "retry" if run.retry_of else "fork" if run.forked_from else "clone" if run.cloned_from else None


def parent(session: Session, run: Run) -> Run | None:
    """The run that this one retries, was forked from or was cloned from."""
    source = run.retry_of or run.forked_from or run.cloned_from
    return session.get(Run, source) if source else None


def children(session: Session, run_id: str, *, limit: int) -> list[Run]:
    """The runs whose parent is this one, oldest first."""
    came_of_it = or_(*(col(column) == run_id for column in (Run.retry_of, Run.forked_from, Run.cloned_from)))
    return list(session.exec(select(Run).where(came_of_it).order_by(col(Run.id)).limit(limit)))


def _flat(kin: Kin) -> list[Run]:
    return [kin.run, *(run for child in kin.children for run in _flat(child))]


class Branch(NamedTuple):
    """Where a fork leaves the run `parent`, which it was forked from."""

    parent: str
    step: int


class Before(NamedTuple):
    """What was trained before a run's own step 0."""

    steps: int = 0
    tokens: int = 0


def branches(runs: Sequence[Run]) -> dict[str, Branch]:
    """The forks whose parents are among the runs, by id."""
    ids = {run.id for run in runs}
    return {run.id: Branch(run.forked_from, run.forked_step or 0) for run in runs if run.forked_from in ids}


def before(runs: Sequence[Run]) -> dict[str, Before]:
    """What every run adds to its steps and tokens to begin where it branches off from its parent, if that is there too.

    A fork that kept the optimizer's state counts on from its checkpoint; from the weights alone it counts from 0 again.
    """
    by_id = {run.id: run for run in runs}

    def of(run: Run) -> Before:
        parent = by_id.get(run.forked_from or "")
        if parent is None:
            return Before()
        inherited = of(parent)
        step = 0 if run.config.get("finetune_state") else run.forked_step or 0
        return Before(inherited.steps + step, inherited.tokens + step * parent.tokens_per_step)

    return {run.id: of(run) for run in runs}
