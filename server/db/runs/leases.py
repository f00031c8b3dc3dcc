"""Which devices are taken: rows that are inserted with a claim and deleted with a release."""

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import delete, update
from sqlmodel import Session, col

from server.db.runs.apply import execute, record, storable
from server.db.tables import DeviceLease, LeaseState, ProcessIdentity
from server.scheduling import DeviceKind


class Placement(NamedTuple):
    """Where one node of an attempt trains."""

    worker_id: str
    host: str
    boot_id: str
    gpus: Sequence[int]
    """Indices of the GPUs; none: it trains on the cores, in slot `cpu_slot` of the host."""
    cpu_slot: int = 0
    uuids: Sequence[str] = ()
    """Of the GPUs, in the order of the indices, where they are known."""

    @property
    def devices(self) -> list[tuple[DeviceKind, int, str]]:
        """What it leases: kind, index and, where it is known, UUID."""
        uuids = self.uuids or [""] * len(self.gpus)
        gpus = [(DeviceKind.GPU, index, uuid) for index, uuid in zip(self.gpus, uuids, strict=True)]
        return gpus or [(DeviceKind.CPU, self.cpu_slot, "")]


def take_devices(session: Session, run_id: str, attempt: int, node: int, place: Placement) -> None:
    """Lease a node's devices. The flush raises IntegrityError when one of them is taken."""
    for kind, index, uuid in place.devices:
        lease = DeviceLease(
            worker_id=place.worker_id, kind=kind, index=index, uuid=uuid, run_id=run_id, attempt=attempt, node=node
        )
        session.add(lease)


def free_devices(session: Session, run_id: str, attempt: int) -> None:
    """Give back what an attempt leases; quarantined devices stay taken."""
    held = delete(DeviceLease).where(
        col(DeviceLease.run_id) == run_id,
        col(DeviceLease.attempt) == attempt,
        col(DeviceLease.state) == LeaseState.HELD,
    )
    execute(session, held)


def quarantine(
    session: Session,
    run_id: str,
    attempt: int,
    *,
    node: int = 0,
    actor: str,
    reason: str,
    processes: Sequence[ProcessIdentity],
) -> None:
    """Keep a node's devices taken beyond the end of its attempt, until `processes` are gone."""
    held = update(DeviceLease).where(
        col(DeviceLease.run_id) == run_id,
        col(DeviceLease.attempt) == attempt,
        col(DeviceLease.node) == node,
        col(DeviceLease.state) == LeaseState.HELD,
    )
    values: dict[str, Any] = {"state": LeaseState.QUARANTINED, "reason": storable(reason), "since": time.time()}
    values["processes"] = list(processes)
    if execute(session, held.values(**values)):
        record(session, run_id, actor=actor, kind="quarantined", detail=reason)


def lift_quarantine(session: Session, lease: DeviceLease, *, actor: str, detail: str) -> bool:
    """Give a quarantined device back. Returns whether it still was in quarantine."""
    mine = delete(DeviceLease).where(
        col(DeviceLease.worker_id) == lease.worker_id,
        col(DeviceLease.kind) == lease.kind,
        col(DeviceLease.index) == lease.index,
        col(DeviceLease.run_id) == lease.run_id,
        col(DeviceLease.attempt) == lease.attempt,
        col(DeviceLease.state) == LeaseState.QUARANTINED,
    )
    if execute(session, mine) == 0:
        return False
    record(session, lease.run_id, actor=actor, kind="quarantine_lifted", detail=detail)
    return True
