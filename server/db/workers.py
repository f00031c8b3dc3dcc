"""Workers and their devices as the scheduler sees them."""

import time

from sqlalchemy import update
from sqlmodel import Session, col, select

from server.db.runs.apply import execute
from server.db.tables import DeviceLease, LeaseState, Run, Worker, WorkerState
from server.queue import PROTOCOL
from server.scheduling import DeviceKind, Gpu, HeldDevice, Resources, WorkerView


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
    return [
        HeldDevice(row.worker_id, DeviceKind(row.kind), row.index, row.run_id, row.state == LeaseState.QUARANTINED)
        for row in session.exec(select(DeviceLease))
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
