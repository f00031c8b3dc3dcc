"""What runs ask for and what workers have, as the scheduler sees them."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Annotated

from pydantic import StringConstraints

ALIVE_S = 60.0
"""A worker that was not seen for this long counts as gone."""

GB = 10**9

Label = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,49}$")]
"""What workers are labelled with and runs ask for: letters, digits, dots, dashes and underscores."""


class DeviceKind(StrEnum):
    """What a lease is on."""

    GPU = "gpu"
    """A whole GPU, by its index on the worker."""
    CPU = "cpu"
    """A slot for one run on the CPU, whatever its number of processes."""


@dataclass(frozen=True)
class Resources:
    """What one run needs at once."""

    num_processes: int = 1
    """On each node: one GPU per process."""
    num_nodes: int = 1
    """Workers that train together: all of them, or the run waits."""
    min_memory_bytes: int = 0
    """Of every GPU. More than 0 rules the CPU out."""
    labels: frozenset[str] = frozenset()
    """Every worker of the run must have all of them."""
    device: str = "auto"
    """auto, cpu or cuda, as in the run's configuration. auto means GPUs wherever a worker with the labels has any."""

    def num_devices(self, kind: DeviceKind) -> int:
        """Devices of one node."""
        return self.num_processes if kind == DeviceKind.GPU else 1


@dataclass(frozen=True)
class QueuedRun:
    """A run that waits."""

    id: str
    name: str
    resources: Resources
    priority: int = 0
    rank: float = 0.0
    """Place within its priority: lower ones first."""
    waited_s: float = 0.0
    duration_s: float | None = None
    """How long it will train, if that is known."""

    @property
    def order(self) -> tuple[int, float, str]:
        """Sorts the queue."""
        return (-self.priority, self.rank, self.id)


@dataclass(frozen=True)
class RunningRun:
    """A run that holds devices."""

    name: str
    remaining_s: float | None = None
    """How long it will go on, estimated from its speed; None while that is unknown."""


@dataclass(frozen=True)
class Gpu:
    """One GPU of a worker."""

    index: int
    memory_bytes: int
    uuid: str
    """The device itself: two workers on one machine see the same one."""


@dataclass(frozen=True, order=True)
class Device:
    """A GPU or a CPU slot as one worker offers it; sorts by what is given away first."""

    memory_bytes: int
    index: int
    key: str
    """The same for every worker that offers the same device."""


@dataclass(frozen=True)
class WorkerView:
    """A worker as its row describes it."""

    id: str
    name: str
    gpus: tuple[Gpu, ...] = ()
    cpu_slots: int = 1
    labels: frozenset[str] = frozenset()
    silent_s: float = 0.0
    """Time since its last heartbeat."""
    is_draining: bool = False

    @property
    def is_alive(self) -> bool:
        return self.silent_s < ALIVE_S

    @cached_property
    def devices(self) -> dict[DeviceKind, list[Device]]:
        """All devices, of each kind the smallest first."""
        gpus = sorted(Device(gpu.memory_bytes, gpu.index, gpu.uuid) for gpu in self.gpus)
        slots = [Device(0, slot, f"{self.id}/{slot}") for slot in range(self.cpu_slots)]
        return {DeviceKind.GPU: gpus, DeviceKind.CPU: slots}


@dataclass(frozen=True)
class HeldDevice:
    """A device that is leased, or set aside because processes on it could not be ended."""

    worker_id: str
    kind: DeviceKind
    index: int
    run_id: str
    is_quarantined: bool = False
    uuid: str = ""
    """Of the GPU that was leased: the index may name another one since the worker was started anew."""


@dataclass(frozen=True)
class Node:
    """One worker's part of a run."""

    worker_id: str
    kind: DeviceKind
    indices: tuple[int, ...]


@dataclass(frozen=True)
class Placement:
    """Where a run starts now: one entry per node, the leader first."""

    run_id: str
    nodes: tuple[Node, ...]


def kind_for(resources: Resources, workers: Iterable[WorkerView]) -> DeviceKind:
    """What a run trains on: the CPU if it says so, or if none of `workers` that has its labels has any GPU."""
    if resources.device == "cpu":
        return DeviceKind.CPU
    if resources.device == "cuda" or resources.min_memory_bytes:
        return DeviceKind.GPU
    has_gpu = any(worker.gpus for worker in workers if resources.labels <= worker.labels)
    return DeviceKind.GPU if has_gpu else DeviceKind.CPU
