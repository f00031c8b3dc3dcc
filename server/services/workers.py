"""The workers, what they hold, and whether they take more."""

import time

from sqlalchemy import func
from sqlmodel import Session, col, select

from server import queue
from server.db import runs as machine
from server.db.session import after_commit
from server.db.tables import ACTIVE, AttemptNode, DeviceLease, LeaseState, Run, Worker, WorkerState
from server.db.workers import set_worker_state
from server.errors import NotFoundError
from server.scheduling import ALIVE_S, DeviceKind
from server.services.lookup import get_row
from server.settings import Settings


def list_workers(session: Session) -> list[Worker]:
    """All workers, the newest seen first."""
    return list(session.exec(select(Worker).order_by(col(Worker.seen_at).desc())))


def count_alive(session: Session) -> int:
    """How many workers were seen lately."""
    alive = select(func.count()).select_from(Worker).where(Worker.seen_at > time.time() - ALIVE_S)
    return session.exec(alive).one()


def is_alive(worker: Worker) -> bool:
    """Whether a worker was seen lately."""
    return time.time() - worker.seen_at < ALIVE_S


def active_runs(session: Session, worker_id: str) -> list[tuple[Run, AttemptNode]]:
    """The runs that a worker trains, each with its part of them."""
    statement = (
        select(Run, AttemptNode)
        .where(AttemptNode.run_id == Run.id, AttemptNode.attempt == Run.fence, AttemptNode.worker_id == worker_id)
        .where(col(Run.state).in_(ACTIVE))
    )
    return [(run, node) for run, node in session.exec(statement.order_by(col(Run.id)))]


def set_draining(session: Session, worker_id: str, *, is_draining: bool, settings: Settings) -> Worker:
    """Let a worker take nothing new, or take runs again. Idempotent. Raises NotFoundError."""
    state = WorkerState.DRAINING if is_draining else WorkerState.ACTIVE
    set_worker_state(session, worker_id, state)
    worker = session.get(Worker, worker_id, populate_existing=True)
    if worker is None:
        raise NotFoundError("There is no such worker.")
    after_commit(session, lambda: queue.announce(settings.redis_url, wake=True))
    return worker


def quarantined(session: Session, worker_id: str | None = None) -> list[DeviceLease]:
    """The quarantined devices of a worker, or of all."""
    statement = select(DeviceLease).where(DeviceLease.state == LeaseState.QUARANTINED)
    if worker_id is not None:
        statement = statement.where(DeviceLease.worker_id == worker_id)
    return list(
        session.exec(statement.order_by(col(DeviceLease.worker_id), col(DeviceLease.kind), col(DeviceLease.index)))
    )


def lift_quarantine(
    session: Session, worker_id: str, kind: DeviceKind, index: int, *, settings: Settings, actor: str
) -> list[DeviceLease]:
    """Give a device back that nobody else will: its worker is gone, or cannot see whether its processes are.

    The history of the run that had it says who did so. Idempotent. Returns what the worker still has in quarantine.
    Raises NotFoundError.
    """
    get_row(session, Worker, worker_id, "worker")
    for lease in quarantined(session, worker_id):
        if (lease.kind, lease.index) == (kind, index):
            machine.lift_quarantine(session, lease, actor=actor, detail=f"{kind} {index}, by a person")
    after_commit(session, lambda: queue.announce(settings.redis_url, wake=True))
    return quarantined(session, worker_id)
