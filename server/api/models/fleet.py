"""Answers about workers, their devices and the queue."""

from pydantic import BaseModel

from server.api.models.base import Model
from server.db.tables import WorkerState
from server.scheduling import DeviceKind


class DeviceOut(BaseModel):
    index: int
    name: str
    memory_bytes: int
    utilization_frac: float | None = None
    """Of the last second or so; null where the driver does not tell."""
    used_bytes: int | None = None
    num_processes: int | None = None
    temperature_c: float | None = None
    power_w: float | None = None


class DeviceSample(BaseModel):
    index: int
    utilization_frac: float | None = None
    used_bytes: int | None = None
    num_processes: int | None = None
    temperature_c: float | None = None
    power_w: float | None = None


class SampleOut(Model):
    """What a worker measured of its machine."""

    ts: float
    cpu_frac: float
    """Of all cores, since the sample before."""
    memory_used_bytes: int
    memory_bytes: int
    disk_free_bytes: int
    """Of the disk that holds the data folder."""
    disk_bytes: int
    devices: list[DeviceSample]


class SampleList(BaseModel):
    items: list[SampleOut]


class WorkerOut(Model):
    id: str
    name: str
    host: str
    state: WorkerState
    """`draining`: it takes no runs."""
    labels: list[str]
    devices: list[DeviceOut]
    cpu_count: int
    cpu_slots: int
    started_at: float
    seen_at: float


class QuarantineOut(Model):
    """A device that is kept from all runs, because a process on it may not have ended."""

    worker_id: str
    kind: DeviceKind
    index: int
    run_id: str
    """The run that had it last."""
    reason: str
    since: float


class QuarantineList(BaseModel):
    items: list[QuarantineOut]


class WorkerList(BaseModel):
    items: list[WorkerOut]


class QueueOut(Model):
    paused: bool
    reason: str
    """Why it is paused, for people."""
    since: float
    """When it was paused or resumed last; 0 when never."""
