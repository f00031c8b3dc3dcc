"""Whether queued runs start at all."""

from sqlmodel import Session, select

from server import queue
from server.db.runs import set_queue_paused
from server.db.session import after_commit
from server.db.tables import QueueState
from server.settings import Settings


def queue_state(session: Session) -> QueueState:
    """Paused or not, why, and since when."""
    return session.exec(select(QueueState)).one()


def pause_queue(session: Session, *, settings: Settings, reason: str = "") -> QueueState:
    """Start no queued run until the queue is resumed; idempotent. Runs that train go on."""
    if set_queue_paused(session, paused=True, reason=reason):
        after_commit(session, lambda: queue.announce(settings.redis_url, "queue", wake=True))
    session.expire_all()
    return queue_state(session)


def resume_queue(session: Session, *, settings: Settings) -> QueueState:
    """Let queued runs start again; idempotent. The workers look at once."""
    if set_queue_paused(session, paused=False):
        after_commit(session, lambda: queue.announce(settings.redis_url, "queue", wake=True))
    session.expire_all()
    return queue_state(session)
