"""`/api/v1/queue`."""

from fastapi import APIRouter

from server.api.dependencies import DatabaseDep, ReadSession, SettingsDep, SingleQuery
from server.api.models import QueueOut
from server.services import queue_state

router = APIRouter(prefix="/queue", tags=["queue"], dependencies=[SingleQuery])


@router.get("")
def get_queue(session: ReadSession) -> QueueOut:
    """Whether queued runs start, and if not, why."""
    return QueueOut.model_validate(queue_state.queue_state(session))


@router.post("/pause")
def pause_queue(database: DatabaseDep, settings: SettingsDep) -> QueueOut:
    """Start no queued run until the queue is resumed; what trains goes on. Idempotent."""
    with database.write() as session:
        return QueueOut.model_validate(queue_state.pause_queue(session, settings=settings))


@router.post("/resume")
def resume_queue(database: DatabaseDep, settings: SettingsDep) -> QueueOut:
    """Let queued runs start again. Idempotent."""
    with database.write() as session:
        return QueueOut.model_validate(queue_state.resume_queue(session, settings=settings))
