"""Predictions of runs, and what became of them."""

import math
import statistics
from collections.abc import Sequence

from sqlalchemy import func
from sqlmodel import Session, col, select

from server.db.runs import nodes_of
from server.db.series import read_series
from server.db.tables import Attempt, AttemptNode, Checkpoint, Prediction, Run, RunState, Worker

NEWEST = 200
"""Past runs that count: software changes, and so does its speed."""
_SPEED = "tokens_per_s"
_MOMENTS = 400
"""Of a run's speed: enough to tell its usual one from that of a slow start, or of an end beside another process."""


def cpu_of(host: str) -> str:
    """The device of a run on the cores of `host`."""
    return f"cpu of {host}"


def past_runs(session: Session, device: str) -> Sequence[Prediction]:
    """The newest runs that were predicted for a device, trained on it, and have ended; the newest first."""
    found = select(Prediction).where(Prediction.device == device, Prediction.actual_device == device)
    return session.exec(found.order_by(col(Prediction.created_at).desc()).limit(NEWEST)).all()


def note_actual(session: Session, run: Run, attempt: int, *, memory_bytes: int) -> None:
    """Add to a run's prediction what it needed, as far as it got; nothing for a run without one, or without a step.

    Args:
        memory_bytes: that a process held at once; 0: not known.
    """
    prediction = session.get(Prediction, run.id)
    if prediction is None:
        return
    found = read_series(session, [run.id], [_SPEED], max_points=_MOMENTS).get((run.id, _SPEED))
    speeds = [speed for speed in found.buckets.values if math.isfinite(speed)] if found else []
    if not speeds:
        return
    actual = {_SPEED: statistics.median(speeds)}
    if memory_bytes:
        actual["memory_bytes"] = float(memory_bytes)
    if run.state == RunState.COMPLETED:
        disk = session.exec(select(func.sum(Checkpoint.size_bytes)).where(Checkpoint.run_id == run.id)).one()
        actual["disk_bytes"] = float(disk or 0)
        trained = func.sum(col(Attempt.ended_at) - col(Attempt.started_at))
        actual["duration_s"] = session.exec(select(trained).where(Attempt.run_id == run.id)).one() or 0.0
    prediction.actual = actual
    prediction.actual_device = _device_of(session, nodes_of(session, run.id, attempt))
    session.add(prediction)


def _device_of(session: Session, nodes: Sequence[AttemptNode]) -> str:
    """The one kind of device that an attempt trained on; empty where it cannot be told, or they differ."""
    names: set[str] = set()
    for node in nodes:
        worker = session.get(Worker, node.worker_id)
        known = {device["index"]: str(device["name"]) for device in worker.devices} if worker else {}
        names |= {known.get(index, "") for index in node.devices} or {cpu_of(node.host)}
    return names.pop() if len(names) == 1 else ""
