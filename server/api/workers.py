"""`/api/v1/workers`."""

import time
from typing import Annotated

from fastapi import APIRouter, Query

from server.api.dependencies import DatabaseDep, ReadSession, SettingsDep, SingleQuery
from server.api.models import SampleList, SampleOut, WorkerList, WorkerOut
from server.services import samples, workers

router = APIRouter(prefix="/workers", tags=["workers"], dependencies=[SingleQuery])


@router.get("")
def list_workers(session: ReadSession) -> WorkerList:
    """All workers, the newest seen first."""
    return WorkerList(items=[WorkerOut.model_validate(row) for row in workers.list_workers(session)])


@router.get("/{worker_id}/samples")
def list_samples(
    session: ReadSession, worker_id: str, hours: Annotated[float, Query(gt=0, le=720)] = 1.0
) -> SampleList:
    """Load of the worker's machine and devices over the last hours, oldest first; one sample in five minutes when more
    than two are asked for.
    """
    samples.get_worker(session, worker_id)
    rows = samples.list_samples(session, worker_id, since=time.time() - 3600 * hours, hours=hours)
    return SampleList(items=[SampleOut.model_validate(row) for row in rows])


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
