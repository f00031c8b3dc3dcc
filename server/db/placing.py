"""The scheduling pass: starts what fits, on whatever worker, and notes why the rest waits.

Any worker may carry it out at any time, for all of them. The lock of the queue's row makes passes follow one another,
and claims and leases are written in the same transaction that read what is free.
"""

import json
from functools import lru_cache
from typing import Any, NamedTuple

from sqlalchemy import Text, cast, update
from sqlmodel import Session, col, select

from server.db.runs import Placement, claim, lock_queue, queue_due
from server.db.states import ACTIVE, Intent, RunState
from server.db.tables import QueueState, Run, Worker
from server.db.workers import held_devices, worker_view, worker_views
from server.scheduling import DeviceKind, Node, QueuedRun, Resources, RunningRun, remaining_s, schedule


class Placed(NamedTuple):
    """An attempt that was begun, and the workers that must start its nodes."""

    run_id: str
    fence: int
    worker_ids: tuple[str, ...]


def has_queued(session: Session, *, now: float) -> bool:
    """Whether a pass could have anything to do."""
    waits = (col(Run.state) == RunState.QUEUED) & (col(Run.intent) == Intent.RUN)
    is_due = (col(Run.state) == RunState.RETRY_WAIT) & (col(Run.not_before) <= now)
    return session.exec(select(Run.id).where(waits | is_due).limit(1)).first() is not None


def place_queued(session: Session, *, actor: str, now: float) -> list[Placed]:
    """One pass. Returns what was started."""
    queue = lock_queue(session)
    queue_due(session, now=now)
    queued, waits_for = _queued(session, now)
    if not queued:
        return []
    workers = {row.id: row for row in session.exec(select(Worker).order_by(col(Worker.id)))}
    views = [worker_view(row, now=now) for row in workers.values()]
    paused = queue.reason if queue.paused else None
    decided = schedule(queued, views, held_devices(session), _running(session), paused=paused)
    placed = []
    for placement in decided.placements:
        places = [_place(workers[node.worker_id], node) for node in placement.nodes]
        fence = claim(session, placement.run_id, placement=places, actor=actor)
        if fence is not None:
            placed.append(Placed(placement.run_id, fence, tuple(node.worker_id for node in placement.nodes)))
    changed = [
        {"id": run_id, "waits_for": words} for run_id, words in decided.waits_for.items() if waits_for[run_id] != words
    ]
    if changed:
        session.execute(update(Run), changed)
    return placed


def preview(session: Session, run: QueuedRun, *, now: float) -> tuple[tuple[Node, ...], int, str]:
    """What would become of a run that was queued now: where it would start, or its place among those that wait (the
    first one is 1) and what for. Nothing is changed, and nobody waits for it.
    """
    queue = session.exec(select(QueueState)).one()
    queued, _ = _queued(session, now)
    views = worker_views(session, now=now)
    paused = queue.reason if queue.paused else None
    decided = schedule([*queued, run], views, held_devices(session), _running(session), paused=paused)
    nodes = next((placement.nodes for placement in decided.placements if placement.run_id == run.id), ())
    waiting = list(decided.waits_for)
    return nodes, waiting.index(run.id) + 1 if not nodes else 0, decided.waits_for.get(run.id, "")


def _place(worker: Worker, node: Node) -> Placement:
    if node.kind == DeviceKind.CPU:
        return Placement(worker.id, worker.host, worker.boot_id, gpus=(), cpu_slot=node.indices[0])
    uuids = {gpu["index"]: gpu.get("uuid") or "" for gpu in worker.devices}
    return Placement(
        worker.id, worker.host, worker.boot_id, gpus=node.indices, uuids=[uuids[index] for index in node.indices]
    )


_PROGRESS = (
    *(Run.step, Run.total_steps, Run.tokens_per_step),
    col(Run.latest)["tokens_per_s"].as_float().label("tokens_per_s"),
)
"""What `remaining_s` needs."""


def _queued(session: Session, now: float) -> tuple[list[QueuedRun], dict[str, str]]:
    """The queue, and what its runs are said to wait for. Columns, not rows: there may be a thousand."""
    columns: tuple[Any, ...] = (
        *(Run.id, Run.name, Run.priority, Run.rank, Run.queued_at, Run.waits_for),
        *(Run.num_processes, Run.num_nodes, Run.min_memory_bytes, cast(Run.labels, Text).label("labels")),
        col(Run.config)["device"].as_string().label("device"),
        *_PROGRESS,
    )
    statement = select(*columns).where(col(Run.state) == RunState.QUEUED, col(Run.intent) == Intent.RUN)
    rows = session.execute(statement).all()
    queued = [
        QueuedRun(
            id=row.id,
            name=row.name,
            resources=_resources(row.num_processes, row.num_nodes, row.min_memory_bytes, row.labels, row.device),
            priority=row.priority,
            rank=row.rank,
            waited_s=now - row.queued_at,
            duration_s=_remaining_s(row),
        )
        for row in rows
    ]
    return queued, {row.id: row.waits_for for row in rows}


@lru_cache(maxsize=4096)
def _resources(
    num_processes: int, num_nodes: int, min_memory_bytes: int | None, labels: str, device: str | None
) -> Resources:
    """Of a thousand runs few ask for something else than all others. `labels` is JSON."""
    wanted = frozenset(json.loads(labels))
    return Resources(num_processes, num_nodes, min_memory_bytes or 0, wanted, device or "auto")


def _running(session: Session) -> dict[str, RunningRun]:
    columns: tuple[Any, ...] = (Run.id, Run.name, *_PROGRESS)
    rows = session.execute(select(*columns).where(col(Run.state).in_(ACTIVE)))
    return {row.id: RunningRun(row.name, _remaining_s(row)) for row in rows}


def _remaining_s(row: Any) -> float | None:
    return remaining_s(
        step=row.step,
        total_steps=row.total_steps,
        tokens_per_step=row.tokens_per_step,
        tokens_per_s=row.tokens_per_s,
    )
