"""Workers and their devices as the scheduler sees them."""

import time
from collections.abc import Mapping
from typing import Any

from sqlalchemy import delete, func, update
from sqlmodel import Session, col, select

from server.db.runs.apply import execute
from server.db.tables import DeviceLease, LeaseState, Run, Worker, WorkerSample, WorkerState
from server.queue import PROTOCOL
from server.scheduling import DeviceKind, Gpu, HeldDevice, Resources, WorkerView

KEEP_S = 86_400.0
KEEP_LONG_S = 30 * KEEP_S
LONG_EVERY_S = 300.0
"""A worker that beats every ten seconds has 8,640 samples of the last day and as many of the last month."""
_FIXED = ("name", "memory_bytes", "uuid")


def worker_views(session: Session, *, now: float | None = None) -> list[WorkerView]:
    """All workers that ever were there, also those that are silent."""
    now = time.time() if now is None else now
    return [worker_view(row, now=now) for row in session.exec(select(Worker).order_by(col(Worker.id)))]


def worker_view(row: Worker, *, now: float) -> WorkerView:
    """One worker. One that speaks another protocol takes no runs: it would not understand them."""
    gpus = (Gpu(d["index"], d["memory_bytes"], d.get("uuid") or f"{row.id}/gpu/{d['index']}") for d in row.devices)
    return WorkerView(
        id=row.id,
        name=row.name,
        gpus=tuple(gpus),
        cpu_slots=row.cpu_slots,
        labels=frozenset(row.labels),
        silent_s=max(0.0, now - row.seen_at),
        is_draining=row.state == WorkerState.DRAINING or row.protocol != PROTOCOL,
    )


def held_devices(session: Session) -> list[HeldDevice]:
    """What is leased or quarantined, on all workers."""
    lease = DeviceLease
    columns: tuple[Any, ...] = (lease.worker_id, lease.kind, lease.index, lease.run_id, lease.state, lease.uuid)
    return [
        HeldDevice(worker_id, DeviceKind(kind), index, run_id, state == LeaseState.QUARANTINED, uuid)
        for worker_id, kind, index, run_id, state, uuid in session.execute(select(*columns))
    ]


def resources_of(run: Run) -> Resources:
    """What a run asks for."""
    return Resources(
        num_processes=run.num_processes,
        num_nodes=run.num_nodes,
        min_memory_bytes=run.min_memory_bytes or 0,
        labels=frozenset(run.labels),
        device=run.config.get("device", "auto"),
    )


def has_other_hosts(session: Session, host: str, pid_namespace: str, *, within_s: float = 86_400.0) -> bool:
    """Whether a worker on another machine than `host`, or in another container there, was there lately."""
    is_other = (col(Worker.host) != host) | (col(Worker.pid_namespace) != pid_namespace)
    others = select(Worker.id).where(is_other, col(Worker.seen_at) > time.time() - within_s)
    return session.exec(others.limit(1)).first() is not None


def set_worker_state(session: Session, worker_id: str, state: WorkerState) -> bool:
    """Drain a worker, or have it take runs again. Returns whether that is new."""
    changed = update(Worker).where(col(Worker.id) == worker_id, col(Worker.state) != state)
    return execute(session, changed.values(state=state)) == 1


def add_sample(session: Session, worker: Worker, host: Mapping[str, Any], *, now: float | None = None) -> None:
    """Keep what a worker measured, `host` (the machine's columns of WorkerSample) and its devices; forget old samples.

    How long a sample lives is written into it, so that one delete by an index is all that thinning takes.
    """
    now = time.time() if now is None else now
    newest = session.exec(
        select(func.max(WorkerSample.ts)).where(
            WorkerSample.worker_id == worker.id, col(WorkerSample.keep_until) > col(WorkerSample.ts) + 2 * KEEP_S
        )
    ).one()
    is_long = newest is None or now // LONG_EVERY_S > newest // LONG_EVERY_S
    devices = [{name: value for name, value in device.items() if name not in _FIXED} for device in worker.devices]
    keep_until = now + (KEEP_LONG_S if is_long else KEEP_S)
    session.add(WorkerSample(worker_id=worker.id, ts=now, keep_until=keep_until, devices=devices, **host))
    session.execute(delete(WorkerSample).where(col(WorkerSample.keep_until) < now))
