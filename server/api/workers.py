"""`/api/v1/workers`."""

from fastapi import APIRouter

from server.api.dependencies import DatabaseDep, ReadSession, SettingsDep, SingleQuery
from server.api.models import WorkerList, WorkerOut
from server.services import workers

router = APIRouter(prefix="/workers", tags=["workers"], dependencies=[SingleQuery])


@router.get("")
def list_workers(session: ReadSession) -> WorkerList:
    """All workers, the newest seen first."""
    return WorkerList(items=[WorkerOut.model_validate(row) for row in workers.list_workers(session)])


@router.post("/{worker_id}/drain")
def drain(worker_id: str, database: DatabaseDep, settings: SettingsDep) -> WorkerOut:
    """Let a worker finish what it trains and take nothing new. Idempotent."""
    with database.write() as session:
        return WorkerOut.model_validate(workers.set_draining(session, worker_id, is_draining=True, settings=settings))


@router.post("/{worker_id}/undrain")
def undrain(worker_id: str, database: DatabaseDep, settings: SettingsDep) -> WorkerOut:
    """Let a drained worker take runs again. Idempotent."""
    with database.write() as session:
        return WorkerOut.model_validate(workers.set_draining(session, worker_id, is_draining=False, settings=settings))
