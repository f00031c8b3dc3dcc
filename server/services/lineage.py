"""Where runs come from, and which runs came of them."""

from collections import defaultdict
from collections.abc import Sequence
from functools import cache
from typing import Any, Literal, NamedTuple

from sqlalchemy import func, or_, tuple_
from sqlmodel import Session, col, select

from server.db.tables import Checkpoint, Run, Sweep
from server.services.forks import NOT_FORKED
from server.services.requests import LAUNCH_FIELDS, OWNED, launch_values
from server.services.run_values import configured
from sparsify_core.config import RunConfig, iter_fields

MAX_DESCENDANTS = 200
_MAX_ANCESTORS = 20
How = Literal["retry", "fork", "clone"]


class Change(NamedTuple):
    """A field that a run was asked for with otherwise than its parent, by its dotted name."""

    field: str
    before: Any
    after: Any


class Kin(NamedTuple):
    """A run, how it came of its parent, and those that came of it."""

    run: Run
    how: How | None
    checkpoint_id: str | None
    """The checkpoint that a fork starts from, while its parent still has it."""
    changes: list[Change]
    children: list["Kin"]

    @property
    def members(self) -> list["Kin"]:
        """This one and all below, each before those that came of it."""
        return [self, *(member for child in self.children for member in child.members)]


class Family(NamedTuple):
    """A run with those that it comes from, in one line, and those that came of it."""

    root: Kin
    sweep: Sweep | None
    """What the root belongs to."""
    num_swept: int
    """Runs of the sweep."""
    has_more: bool
    """Whether more runs came of it than these."""

    @property
    def runs(self) -> list[Run]:
        """All of them, the root first."""
        return [kin.run for kin in self.root.members]


def family(session: Session, run: Run, *, limit: int) -> Family:
    """A run's parents up to the first, at most `limit` of those that came of it, and the sweep that it began in."""
    line = [run]
    while len(line) <= _MAX_ANCESTORS and (above := parent(session, line[0])) is not None:
        line.insert(0, above)
    below = _descendants(session, run.id, limit + 1)
    sweep = session.get(Sweep, line[0].sweep_id) if line[0].sweep_id else None
    swept = select(func.count()).where(Run.sweep_id == line[0].sweep_id)
    num_swept = session.exec(swept).one() if sweep else 0
    return Family(_tree(session, [*line, *below[:limit]]), sweep, num_swept, has_more=len(below) > limit)


def how_made(run: Run) -> How | None:
    """How a run came of another one, if it did."""
    return "retry" if run.retry_of else "fork" if run.forked_from else "clone" if run.cloned_from else None


def parent_id(run: Run) -> str | None:
    """The run that this one retries, was forked from or was cloned from."""
    return run.retry_of or run.forked_from or run.cloned_from


def parent(session: Session, run: Run) -> Run | None:
    source = parent_id(run)
    return session.get(Run, source) if source else None


def changes(origin: Run, run: Run) -> list[Change]:
    """What `run` was asked for with otherwise than `origin`, but for its name and what forks and Sparseboard set."""
    before, after = _values(origin), _values(run)
    return [Change(name, before[name], after[name]) for name in before if before[name] != after[name]]


def _tree(session: Session, members: Sequence[Run]) -> Kin:
    """From the runs of a family, each behind its parent."""
    checkpoints = _checkpoints(session, members)
    children: dict[str | None, list[Run]] = defaultdict(list)
    for one in members[1:]:
        children[parent_id(one)].append(one)

    def kin(run: Run, differs: list[Change]) -> Kin:
        below = [kin(child, changes(run, child)) for child in children[run.id]]
        checkpoint = checkpoints.get((run.forked_from, run.forked_step)) if how_made(run) == "fork" else None
        return Kin(run, how_made(run), checkpoint, differs, below)

    return kin(members[0], [])


def _checkpoints(session: Session, runs: Sequence[Run]) -> dict[tuple[str | None, int | None], str]:
    """The checkpoints that forks among the runs start from, by run and step."""
    places = [(run.forked_from, run.forked_step) for run in runs if run.forked_from]
    wanted = tuple_(col(Checkpoint.run_id), col(Checkpoint.step)).in_(places)
    found = session.exec(select(Checkpoint.run_id, Checkpoint.step, Checkpoint.id).where(wanted)) if places else ()
    return {(run_id, step): checkpoint_id for run_id, step, checkpoint_id in found}


def _descendants(session: Session, run_id: str, limit: int) -> list[Run]:
    """The oldest runs that came of this one, generation by generation."""
    found: list[Run] = []
    level = [run_id]
    while level and len(found) < limit:
        came_of_them = or_(*(col(column).in_(level) for column in (Run.retry_of, Run.forked_from, Run.cloned_from)))
        children = session.exec(select(Run).where(came_of_them).order_by(col(Run.id)).limit(limit - len(found))).all()
        level = [child.id for child in children]
        found += children
    return found


def _values(run: Run) -> dict[str, Any]:
    launch = launch_values(run)
    return {name: launch[name] for name in LAUNCH_FIELDS if name != "name"} | {
        name: configured(run.config, name, default) for name, default in _defaults().items()
    }


@cache
def _defaults() -> dict[str, Any]:
    """The fields of a configuration that people set, by dotted name."""
    fields = {spec.name: spec.default for spec in iter_fields(RunConfig)}
    return {name: default for name, default in fields.items() if name not in OWNED and name not in NOT_FORKED}


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
