"""What stands on the x axis of a run's charts besides its points."""

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


def marks(session: Session, run_id: str) -> list[Mark]:
    """All marks of a run."""
    saved = select(Checkpoint.step).where(Checkpoint.run_id == run_id).order_by(col(Checkpoint.step))
    resumed = select(Attempt.attempt, Attempt.resumed_step).where(Attempt.run_id == run_id, Attempt.resumed_step > 0)
    warned = select(RunEvent.detail, RunEvent.ts).where(RunEvent.run_id == run_id, RunEvent.kind == "warning")
    return [
        *(Mark("checkpoint", f"checkpoint of step {step:,}", step=step) for step in session.exec(saved)),
        *(
            Mark("attempt", f"attempt {attempt} goes on from step {step:,}", step=step)
            for attempt, step in session.exec(resumed.order_by(col(Attempt.attempt)))
        ),
        *(Mark("warning", f"warning: {text}", ts=ts) for text, ts in session.exec(warned.order_by(col(RunEvent.id)))),
    ]


def origin(session: Session, run_id: str) -> float:
    """Unix time at which the run's first attempt started, where its wall time counts from; 0 before."""
    first = select(func.min(Attempt.started_at)).where(Attempt.run_id == run_id)
    return session.exec(first).one() or 0.0
