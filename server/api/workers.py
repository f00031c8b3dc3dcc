"""`/api/v1/workers`."""

from fastapi import APIRouter

from server.api.dependencies import ReadSession, SingleQuery
from server.api.models import WorkerList, WorkerOut
from server.services import workers

router = APIRouter(prefix="/workers", tags=["workers"], dependencies=[SingleQuery])


@router.get("")
def list_workers(session: ReadSession) -> WorkerList:
    """All workers, the newest seen first."""
    return WorkerList(items=[WorkerOut.model_validate(row) for row in workers.list_workers(session)])
