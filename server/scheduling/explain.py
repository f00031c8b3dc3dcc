"""Says why a run waits, in words."""

import math
from collections.abc import Mapping, Sequence

from server.numbers import plural
from server.scheduling.pool import Pool
from server.scheduling.reservation import Reservation
from server.scheduling.resources import (
    GB,
    Device,
    DeviceKind,
    HeldDevice,
    QueuedRun,
    Resources,
    RunningRun,
    WorkerView,
    kind_for,
)

_UNKNOWN_S = 1e12
"""Sorts behind every estimate and before what nothing frees."""


def needs(resources: Resources, kind: DeviceKind) -> str:
    """`2 GPUs of ≥24 GB on each of 2 workers labelled a100`."""
    text = "a CPU slot" if kind == DeviceKind.CPU else plural(resources.num_processes, "GPU")
    if resources.min_memory_bytes:
        text += f" of ≥{resources.min_memory_bytes / GB:.10g} GB"
    labelled = f" labelled {', '.join(sorted(resources.labels))}" if resources.labels else ""
    if resources.num_nodes > 1:
        return f"{text} on each of {resources.num_nodes} workers{labelled}"
    return f"{text} on a worker{labelled}" if labelled else text


def never_satisfiable(resources: Resources, workers: Sequence[WorkerView]) -> str | None:
    """A sentence when the connected workers could not start the run even if all of them were idle, else None.

    Without any connected worker nothing is known, and the answer is None.
    """
    workers = [worker for worker in workers if worker.is_alive]
    return _never(resources, Pool(workers)) if workers else None


def _never(resources: Resources, everything: Pool) -> str | None:
    workers = everything.workers
    kind = kind_for(resources, workers)
    if everything.has_room(resources, kind):
        return None
    labelled = [worker for worker in workers if resources.labels <= worker.labels]
    if not labelled:
        noun = "that label" if len(resources.labels) == 1 else "those labels"
        return f"needs a worker labelled {', '.join(sorted(resources.labels))}, and no connected worker has {noun}"
    wanted = f"needs {needs(resources, kind)}"
    sizes = [
        sum(device.memory_bytes >= resources.min_memory_bytes for device in worker.devices[kind]) for worker in labelled
    ]
    num_large = sum(size >= resources.num_devices(kind) for size in sizes)
    if num_large:
        return f"{wanted}, and only {plural(num_large, 'connected worker')} could take part"
    most = max(sizes)
    return f"{wanted}, and no connected worker has {f'more than {most} of them' if most else 'any'}"


class Explainer:
    """Explains one pass. Runs that ask for the same get the same words, but for their position.

    Args:
        workers: the connected ones, draining ones too.
        held: key of a device -> who has it, after the pass.
    """

    def __init__(
        self,
        workers: Sequence[WorkerView],
        pool: Pool,
        held: Mapping[str, HeldDevice],
        running: Mapping[str, RunningRun],
        reservation: Reservation | None,
    ) -> None:
        self._everything = Pool(workers)
        self._undrained = Pool(pool.workers)
        self._pool = pool
        self._held = held
        self._running = running
        self._reservation = reservation
        self._releases = {kind: self._sorted_releases(kind) for kind in DeviceKind}
        self._known: dict[Resources, str] = {}

    def explain(self, run: QueuedRun, position: int) -> str:
        """`waits for 2 GPUs of ≥24 GB; GPU 1 frees in ~40 min (run blue-fox); position 3`."""
        if run.resources not in self._known:
            self._known[run.resources] = self._explain(run.resources)
        return f"{self._known[run.resources]}; position {position}"

    def _explain(self, resources: Resources) -> str:
        if not self._everything.workers:
            return "waits for a worker: none is connected"
        never = _never(resources, self._everything)
        if never is not None:
            return f"cannot start yet: {never}"
        kind = kind_for(resources, self._everything.workers)
        waits = f"waits for {needs(resources, kind)}"
        if not self._undrained.has_room(resources, kind):
            return f"{waits}; workers that have them are draining"
        if self._reservation is not None and self._pool.has_room(resources, kind):
            return f"{waits}; what is free is kept for run {self._reservation.run_name}"
        obstacle = self._obstacle(resources, kind)
        return f"{waits}; {obstacle}" if obstacle else waits

    def _obstacle(self, resources: Resources, kind: DeviceKind) -> str:
        """Which of the devices that the run could use becomes free first."""
        for _, text, worker, device in self._releases[kind]:
            if resources.labels <= worker.labels and device.memory_bytes >= resources.min_memory_bytes:
                return text
        return ""

    def _sorted_releases(self, kind: DeviceKind) -> list[tuple[float, str, WorkerView, Device]]:
        """The held devices of a kind, what becomes free first before the others."""
        found = [
            (*self._release(self._held[device.key], self._name(worker, kind, device.index)), worker, device)
            for worker in self._pool.workers
            for device in worker.devices[kind]
            if device.key in self._held
        ]
        return sorted(found, key=lambda entry: entry[:2])

    def _release(self, holder: HeldDevice, device: str) -> tuple[float, str]:
        if holder.is_quarantined:
            return math.inf, f"{device} is set aside, because processes on it could not be ended"
        run = self._running.get(holder.run_id)
        if run is None or run.remaining_s is None:
            return _UNKNOWN_S, f"{device} is held" + (f" by run {run.name}" if run else "")
        return run.remaining_s, f"{device} frees in {roughly(run.remaining_s)} (run {run.name})"

    def _name(self, worker: WorkerView, kind: DeviceKind, index: int) -> str:
        device = (
            f"GPU {index}" if kind == DeviceKind.GPU else "the CPU" if worker.cpu_slots == 1 else f"CPU slot {index}"
        )
        return f"{device} of {worker.name}" if len(self._pool.workers) > 1 else device


def roughly(seconds: float) -> str:
    """`~3 min`, `~40 min`, `~2 h`: coarse, so that a stored sentence need not change all the time."""
    minutes = seconds / 60
    if minutes < 10:
        return f"~{max(1, round(minutes))} min"
    if minutes < 115:
        return f"~{5 * round(minutes / 5)} min"
    hours = minutes / 60
    return f"~{round(hours)} h" if hours < 36 else f"~{round(hours / 24)} d"
