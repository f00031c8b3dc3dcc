"""What a run could train on: the device that a plan is made for, and whether the others have room."""

import os
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass

from sqlmodel import Session, col, select

from server.db.predictions import cpu_of
from server.db.tables import Worker
from server.db.workers import held_devices, worker_view
from server.planning import Device
from server.scheduling import GB, DeviceKind, Resources, WorkerView
from server.scheduling.pool import Pool, held_keys
from server.scheduling.resources import kind_for
from server.services.requests import RunRequest
from server.services.samples import newest_sample

UNKNOWN_GPU = "GPU"


@dataclass(frozen=True)
class Target:
    """A device under the name that its past runs have."""

    device: Device
    key: str
    where: str
    """For people: `NVIDIA H100 80GB HBM3 of here`."""


@dataclass(frozen=True)
class Offer:
    """GPUs of one kind of one worker, or its cores.

    Args:
        memory_bytes: of each GPU, or a process's part of the machine's; 0: not known.
    """

    worker: str
    device: str
    num_devices: int
    num_free: int
    memory_bytes: int
    fits: bool | None = None
    """Whether the run has room on each of them; None: not known."""


def resources(request: RunRequest) -> Resources:
    """What the scheduler looks for."""
    return Resources(
        num_processes=request.num_processes,
        num_nodes=request.num_nodes,
        min_memory_bytes=round((request.min_memory_gb or 0) * GB),
        labels=frozenset(request.labels),
        device=request.config.device,
    )


class Fleet:
    """The connected workers, as they are now."""

    def __init__(self, session: Session) -> None:
        self._session = session
        rows = session.exec(select(Worker).order_by(col(Worker.id))).all()
        now = time.time()
        self._rows = {row.id: row for row in rows}
        self._views = [view for row in rows if (view := worker_view(row, now=now)).is_alive]
        self._held = held_keys(held_devices(session), self._views)

    def target(self, wanted: Resources) -> Target:
        """Where it would start: on what is free, else on what could be; without workers on something like this
        machine.
        """
        kind = kind_for(wanted, self._views)
        ready = [view for view in self._views if not view.is_draining]
        nodes = Pool(ready, self._held).place(wanted, kind) or Pool(self._views).place(wanted, kind)
        if nodes:
            return self._target(self._rows[nodes[0].worker_id], kind, nodes[0].indices, wanted.num_processes)
        for view in self._views:  # none can take it: it is planned for the first of its kind all the same
            if view.devices[kind]:
                return self._target(self._rows[view.id], kind, (view.devices[kind][-1].index,), wanted.num_processes)
        if kind == DeviceKind.GPU:
            return Target(
                Device(UNKNOWN_GPU, wanted.min_memory_bytes), UNKNOWN_GPU, "some GPU, while none is connected"
            )
        cores = max(1, (os.cpu_count() or 1) // wanted.num_processes)
        return Target(
            Device("cpu", cores=cores),
            cpu_of(socket.gethostname()),
            "the server's own cores, while no worker is connected",
        )

    def offers(self, wanted: Resources) -> list[Offer]:
        """All devices of the kind that it trains on, with its labels."""
        kind = kind_for(wanted, self._views)
        return [
            offer
            for view in self._views
            if wanted.labels <= view.labels and not view.is_draining
            for offer in self._offers(view, kind, wanted.num_processes)
        ]

    def _offers(self, view: WorkerView, kind: DeviceKind, num_processes: int) -> Sequence[Offer]:
        if kind == DeviceKind.CPU:
            free = sum(slot.key not in self._held for slot in view.devices[kind])
            cores = self._rows[view.id].cpu_count
            memory = self._memory_bytes(view.id) // num_processes
            return [Offer(view.name, f"CPU, {cores} cores", len(view.devices[kind]), free, memory)] if cores else []
        names = {device["index"]: str(device["name"]) for device in self._rows[view.id].devices}
        found: dict[tuple[str, int], list[bool]] = {}
        for device in view.devices[kind]:
            found.setdefault((names[device.index], device.memory_bytes), []).append(device.key not in self._held)
        return [Offer(view.name, name, len(free), sum(free), size) for (name, size), free in found.items()]

    def _target(self, row: Worker, kind: DeviceKind, indices: Sequence[int], num_processes: int) -> Target:
        if kind == DeviceKind.CPU:
            cores = max(1, row.cpu_count // num_processes)
            device = Device("cpu", self._memory_bytes(row.id) // num_processes, cores)
            return Target(device, cpu_of(row.host), f"{row.cpu_count} cores of {row.name}")
        chosen = [device for device in row.devices if device["index"] in indices]
        smallest = min(chosen, key=lambda device: device["memory_bytes"])
        name = str(smallest["name"])
        return Target(Device(name, smallest["memory_bytes"]), name, f"{name} of {row.name}")

    def _memory_bytes(self, worker_id: str) -> int:
        """Of a worker's machine, as it measured last; 0: not known."""
        sample = newest_sample(self._session, worker_id)
        return sample.memory_bytes if sample else 0
