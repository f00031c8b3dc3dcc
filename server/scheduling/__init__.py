"""Which queued run gets which devices, and why the others wait. Pure: no database, no clock, no device is touched."""

from server.scheduling.estimate import remaining_s
from server.scheduling.explain import never_satisfiable
from server.scheduling.resources import (
    ALIVE_S,
    GB,
    DeviceKind,
    Gpu,
    HeldDevice,
    Label,
    Node,
    Placement,
    QueuedRun,
    Resources,
    RunningRun,
    WorkerView,
)
from server.scheduling.schedule import PATIENCE_S, Schedule, schedule

__all__ = [
    "ALIVE_S",
    "GB",
    "PATIENCE_S",
    "DeviceKind",
    "Gpu",
    "HeldDevice",
    "Label",
    "Node",
    "Placement",
    "QueuedRun",
    "Resources",
    "RunningRun",
    "Schedule",
    "WorkerView",
    "never_satisfiable",
    "remaining_s",
    "schedule",
]
