"""What workers measured of their machines over time."""

from sqlmodel import Session, col, select

from server.db.tables import Worker, WorkerSample
from server.db.workers import KEEP_S
from server.services.lookup import get_row

MAX_SAMPLES = 720
RAW_HOURS = 2.0
"""A longer look back takes the samples that stay: one in five minutes."""


def get_worker(session: Session, worker_id: str) -> Worker:
    """Raises NotFoundError."""
    return get_row(session, Worker, worker_id, "worker")


def list_samples(session: Session, worker_id: str, *, since: float, hours: float) -> list[WorkerSample]:
    """A worker's samples after `since`, a look of so many `hours` back; oldest first, at most about `MAX_SAMPLES`."""
    statement = select(WorkerSample).where(WorkerSample.worker_id == worker_id, col(WorkerSample.ts) > since)
    if hours > RAW_HOURS:
        statement = statement.where(col(WorkerSample.keep_until) > col(WorkerSample.ts) + 2 * KEEP_S)
    rows = list(session.exec(statement.order_by(col(WorkerSample.ts))))
    stride = -(-len(rows) // MAX_SAMPLES) or 1
    return rows[::-stride][::-1]  # the newest is always among them


def newest_sample(session: Session, worker_id: str) -> WorkerSample | None:
    """What a worker measured last."""
    statement = select(WorkerSample).where(WorkerSample.worker_id == worker_id)
    return session.exec(statement.order_by(col(WorkerSample.ts).desc()).limit(1)).first()
