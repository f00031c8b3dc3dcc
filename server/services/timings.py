"""Where the time of a run's steps goes, as measured on the way."""

from sqlmodel import Session, col, select

from server.db.tables import StepTiming

NEWEST = 100


def newest(session: Session, run_id: str, *, limit: int = NEWEST) -> list[StepTiming]:
    """The last `limit` measurements of a run, oldest first."""
    statement = select(StepTiming).where(StepTiming.run_id == run_id)
    rows = session.exec(statement.order_by(col(StepTiming.step).desc(), col(StepTiming.attempt).desc()).limit(limit))
    return list(rows)[::-1]
