"""What stands on the x axis of a run's charts besides its points."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

from sqlalchemy import func
from sqlmodel import Session, col, select

from server.db.tables import Attempt, Checkpoint, RunEvent


class Mark(NamedTuple):
    """A checkpoint, an attempt that goes on from one, or a warning: these have a time (`ts`), the others a `step`."""

    kind: Literal["checkpoint", "attempt", "warning"]
    label: str
    step: int | None = None
    ts: float | None = None


def marks(session: Session, run_ids: Sequence[str]) -> dict[str, list[Mark]]:
    """All marks of these runs, by run: checkpoints first, warnings last."""
    saved = select(Checkpoint.run_id, Checkpoint.step).where(col(Checkpoint.run_id).in_(run_ids))
    resumed = select(Attempt.run_id, Attempt.attempt, Attempt.resumed_step).where(Attempt.resumed_step > 0)
    warned = select(RunEvent.run_id, RunEvent.detail, RunEvent.ts).where(RunEvent.kind == "warning")
    resumed = resumed.where(col(Attempt.run_id).in_(run_ids)).order_by(col(Attempt.attempt))
    warned = warned.where(col(RunEvent.run_id).in_(run_ids)).order_by(col(RunEvent.id))
    found: dict[str, list[Mark]] = {run_id: [] for run_id in run_ids}
    for run_id, step in session.exec(saved.order_by(col(Checkpoint.step))):
        found[run_id].append(Mark("checkpoint", f"checkpoint of step {step:,}", step=step))
    for run_id, attempt, step in session.exec(resumed):
        found[run_id].append(Mark("attempt", f"attempt {attempt} goes on from step {step:,}", step=step))
    for run_id, text, ts in session.exec(warned):
        found[run_id].append(Mark("warning", f"warning: {text}", ts=ts))
    return found


def origins(session: Session, run_ids: Sequence[str]) -> dict[str, float]:
    """Unix time at which a run's first attempt started, where its wall time counts from; 0 before."""
    first = select(Attempt.run_id, func.min(Attempt.started_at)).group_by(Attempt.run_id)
    found = dict(session.exec(first.where(col(Attempt.run_id).in_(run_ids))).all())
    return {run_id: found.get(run_id, 0.0) for run_id in run_ids}
