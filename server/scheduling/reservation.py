"""Keeps devices free for the first run that does not fit, so that smaller ones behind it cannot pass it forever."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from server.scheduling.resources import DeviceKind, QueuedRun, WorkerView

PATIENCE_S = 30 * 60.0
"""How long a run may wait before nothing of unknown length may take the devices that it waits for."""


@dataclass(frozen=True)
class Reservation:
    """What the run `run_id` will start on."""

    run_id: str
    run_name: str
    keys: frozenset[str]
    in_s: float
    """When the last of the devices becomes free; infinite while that is unknown."""
    is_overdue: bool

    def lets_pass(self, run: QueuedRun) -> bool:
        """Whether `run` may start on reserved devices: it ends in time, or nobody can tell and nobody waits long."""
        if run.duration_s is not None and math.isfinite(self.in_s):
            return run.duration_s <= self.in_s
        return not self.is_overdue and self.in_s > PATIENCE_S


def reserve(
    run: QueuedRun, kind: DeviceKind, workers: Iterable[WorkerView], busy_s: Mapping[str, float]
) -> Reservation | None:
    """The devices on which a run that does not fit can start first; None when no running run's end makes room.

    Without estimates those are the workers that lack the fewest devices. What they lack can only shrink, for nobody
    else gets what becomes free there: the run starts at last.

    Args:
        busy_s: key of a device -> seconds until it is free, infinite if unknown. Free devices have no entry, and those
            set aside are NaN: nothing frees them.
    """
    resources = run.resources
    choices = sorted(
        choice
        for worker in workers
        if resources.labels <= worker.labels and (choice := _soonest(run, worker, kind, busy_s))
    )
    keys: set[str] = set()
    in_s, num_nodes = 0.0, 0
    for ready_s, _, _, wanted in choices:
        if keys.isdisjoint(wanted):
            keys.update(wanted)
            in_s, num_nodes = max(in_s, ready_s), num_nodes + 1
        if num_nodes == resources.num_nodes:
            return Reservation(run.id, run.name, frozenset(keys), in_s, run.waited_s > PATIENCE_S)
    return None


def _soonest(
    run: QueuedRun, worker: WorkerView, kind: DeviceKind, busy_s: Mapping[str, float]
) -> tuple[float, int, str, tuple[str, ...]] | None:
    """When a worker could take one node, how many devices it lacks until then, its id, and the devices' keys."""
    count = run.resources.num_devices(kind)
    usable = [device for device in worker.devices[kind] if device.memory_bytes >= run.resources.min_memory_bytes]
    waits = sorted((wait, d.key) for d in usable if not math.isnan(wait := busy_s.get(d.key, -1.0)))[:count]
    if len(waits) < count:
        return None
    return max(0.0, waits[-1][0]), sum(wait >= 0 for wait, _ in waits), worker.id, tuple(key for _, key in waits)
