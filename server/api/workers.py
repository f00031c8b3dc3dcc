"""`/api/v1/workers`."""

import time
from collections.abc import Sequence
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Path, Query
from pydantic import BaseModel, ConfigDict

from server.api.dependencies import Body, DatabaseDep, ReadSession, SettingsDep, SingleQuery, body_schema, json_body
from server.api.models import QuarantineList, QuarantineOut, SampleList, SampleOut, WorkerList, WorkerOut
from server.auth import CurrentUser
from server.db.tables import DeviceLease
from server.scheduling import DeviceKind
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


class LiftRequest(BaseModel):
    """Says that somebody has looked."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    confirm: Literal[True]
    """No process uses the device any more: two runs on one device would end each other."""


@router.get("/quarantine")
def list_quarantined(session: ReadSession) -> QuarantineList:
    """The devices of all workers that no run gets, because a process on them may not have ended."""
    return _quarantine(workers.quarantined(session))


@router.post("/{worker_id}/quarantine/{kind}/{index}/lift", openapi_extra=body_schema(LiftRequest))
def lift_quarantine(
    worker_id: str,
    kind: DeviceKind,
    index: Annotated[int, Path(ge=0, le=1_000_000)],
    body: Annotated[Body[LiftRequest], Depends(json_body(LiftRequest))],
    database: DatabaseDep,
    settings: SettingsDep,
    user: CurrentUser,
) -> QuarantineList:
    """Give a quarantined device back to the queue. Idempotent: answers with what the worker still has in quarantine."""
    with database.write() as session:
        left = workers.lift_quarantine(session, worker_id, kind, index, settings=settings, actor=user.name)
    return _quarantine(left)


def _quarantine(leases: Sequence[DeviceLease]) -> QuarantineList:
    return QuarantineList(items=[QuarantineOut.model_validate(lease) for lease in leases])
