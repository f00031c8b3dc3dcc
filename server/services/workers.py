"""The workers and what they hold."""

import time

from sqlalchemy import func
from sqlmodel import Session, col, select

from server.db.tables import ACTIVE, AttemptNode, Run, Worker

ALIVE_S = 60
"""A worker that was not seen for this long counts as gone."""


def list_workers(session: Session) -> list[Worker]:
    """All workers, the newest seen first."""
    return list(session.exec(select(Worker).order_by(col(Worker.seen_at).desc())))


def count_alive(session: Session) -> int:
    """How many workers were seen lately."""
    alive = select(func.count()).select_from(Worker).where(Worker.seen_at > time.time() - ALIVE_S)
    return session.exec(alive).one()


def active_runs(session: Session, worker_id: str) -> list[Run]:
    """The runs that a worker holds."""
    held = select(AttemptNode.run_id).where(
        AttemptNode.worker_id == worker_id, AttemptNode.run_id == Run.id, AttemptNode.attempt == Run.fence
    )
    return list(session.exec(select(Run).where(col(Run.state).in_(ACTIVE), held.exists()).order_by(col(Run.id))))
