"""Create, find and end sweeps: many runs that were asked for together."""

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import func
from sqlmodel import Session, col, select

from server.db.tables import TERMINAL, Run, RunState, Sweep
from server.errors import FieldProblem, InvalidError
from server.services import control
from server.services.headline import headline
from server.services.lookup import get_row
from server.services.names import random_name
from server.services.refusals import Refusals
from server.services.runs import enqueue, new_run
from server.services.sweep_spec import PlannedRun, SweepRequest, expand, label
from server.settings import Settings


class SweepRun(NamedTuple):
    """A run of a sweep: its own values by the name of the field, and what came of them (`headline`)."""

    run: Run
    values: dict[str, Any]
    numbers: dict[str, float | None]


class SweepView(NamedTuple):
    """A sweep with its runs, in the order in which they were made."""

    sweep: Sweep
    runs: list[SweepRun]

    @property
    def fields(self) -> list[str]:
        """Dotted names of the fields that vary."""
        return [axis["field"] for axis in self.sweep.spec["axes"]]

    @property
    def counts(self) -> dict[str, int]:
        """Runs by state, in the order of the states."""
        found = Counter(one.run.state for one in self.runs)
        return {state: found[state] for state in RunState if found[state]}

    @property
    def is_over(self) -> bool:
        return all(one.run.state in TERMINAL for one in self.runs)


def plan_sweep(request: SweepRequest, settings: Settings) -> list[PlannedRun]:
    """The runs that a sweep would make. Raises InvalidError, which names those that cannot be made."""
    planned, refusals = expand(request), Refusals(settings)
    problems = [
        FieldProblem(("runs", number, *problem.loc), f"{label(one.values)}: {problem.msg}", problem.code)
        for number, one in enumerate(planned)
        for problem in refusals.of(one.request)
    ]
    if problems:
        raise InvalidError(problems[0].msg, errors=problems[:20])
    return planned


def create_sweep(session: Session, request: SweepRequest, *, settings: Settings, actor: str) -> Sweep:
    """Queue all runs of a sweep, or none. Raises InvalidError, which names those that cannot be made."""
    name = request.base.name or random_name()
    request = request.model_copy(update={"base": request.base.model_copy(update={"name": name})})
    planned = plan_sweep(request, settings)
    sweep = Sweep(name=name, spec=request.model_dump(mode="json"))
    session.add(sweep)
    session.flush()
    made = [new_run(one.request, sweep_id=sweep.id) for one in planned]
    enqueue(session, *made, settings=settings, actor=actor, detail=f"of the sweep {name}")
    return sweep


def get_sweep(session: Session, sweep_id: str) -> Sweep:
    """Raises NotFoundError."""
    return get_row(session, Sweep, sweep_id, "sweep")


def view_sweep(session: Session, sweep_id: str) -> SweepView:
    """A sweep with its runs. Raises NotFoundError."""
    sweep = get_sweep(session, sweep_id)
    names = [axis["field"] for axis in sweep.spec["axes"]]
    return SweepView(
        sweep,
        [
            SweepRun(run, {name: _value(run.config, name) for name in names}, headline(run.latest))
            for run in runs_of(session, sweep_id)
        ],
    )


def runs_of(session: Session, sweep_id: str) -> Sequence[Run]:
    """In the order in which they were made."""
    return session.exec(select(Run).where(Run.sweep_id == sweep_id).order_by(col(Run.rank), col(Run.id))).all()


def list_sweeps(session: Session, *, limit: int = 50, before: str | None = None) -> list[tuple[Sweep, dict[str, int]]]:
    """Sweeps with their runs by state, newest first.

    Args:
        before: id of the last one of the page before.
    """
    statement = select(Sweep).order_by(col(Sweep.id).desc()).limit(limit)
    if before is not None:
        statement = statement.where(col(Sweep.id) < before)
    found = list(session.exec(statement))
    counted = (
        select(Run.sweep_id, Run.state, func.count())
        .where(col(Run.sweep_id).in_([sweep.id for sweep in found]))
        .group_by(col(Run.sweep_id), col(Run.state))
    )
    by_sweep: dict[str | None, dict[str, int]] = {}
    for sweep_id, state, number in session.exec(counted):
        by_sweep.setdefault(sweep_id, {})[state] = number
    return [(sweep, by_sweep.get(sweep.id, {})) for sweep in found]


def cancel_sweep(session: Session, sweep_id: str, *, settings: Settings, actor: str) -> list[Run]:
    """End all runs of a sweep that are not over. Raises NotFoundError."""
    get_sweep(session, sweep_id)
    unfinished = [run.id for run in runs_of(session, sweep_id) if run.state not in TERMINAL]
    return control.cancel_runs(session, unfinished, settings=settings, actor=actor)


def _value(config: dict[str, Any], dotted: str) -> Any:
    node: Any = config
    for part in dotted.split("."):
        node = node[part]
    return node
