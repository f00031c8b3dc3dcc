"""Free devices, and the best fit among them."""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Container, Iterable, Iterator, Sequence
from operator import attrgetter

from server.scheduling.resources import Device, DeviceKind, HeldDevice, Node, Resources, WorkerView


def held_keys(held: Iterable[HeldDevice], workers: Iterable[WorkerView]) -> dict[str, HeldDevice]:
    """Key -> who holds the device, whichever of `workers` it is offered by.

    Of a worker that numbers its GPUs anew both are taken: the one that was leased, and the one that is there now.
    """
    keys = {(w.id, kind, d.index): d.key for w in workers for kind in DeviceKind for d in w.devices[kind]}
    places = ((keys.get((one.worker_id, one.kind, one.index)), one) for one in held)
    return {key: one for at_place, one in places for key in (one.uuid, at_place) if key}


_memory = attrgetter("memory_bytes")


class Pool:
    """What nobody holds on `workers`. It only ever shrinks: what did not fit once does not fit later."""

    def __init__(self, workers: Sequence[WorkerView], held: Container[str] = ()) -> None:
        self.workers = workers
        self._free: dict[tuple[str, DeviceKind], list[Device]] = {}
        self._offers: defaultdict[str, list[tuple[str, DeviceKind]]] = defaultdict(list)
        for worker in workers:
            for kind in DeviceKind:
                devices = [device for device in worker.devices[kind] if device.key not in held]
                self._free[worker.id, kind] = devices
                for device in devices:
                    self._offers[device.key].append((worker.id, kind))

    def place(
        self, resources: Resources, kind: DeviceKind, *, without: frozenset[str] = frozenset()
    ) -> tuple[Node, ...] | None:
        """Devices of a kind for a run, none of those whose keys are in `without`; None if there is no room.

        The workers with the least room that suffices are taken, and the smallest of their GPUs that are large enough.
        """
        nodes: list[Node] = []
        used: set[str] = set()
        for _, worker_id, devices in sorted(self._fits(resources, kind, without)):
            if used.isdisjoint(device.key for device in devices):
                nodes.append(Node(worker_id, kind, tuple(sorted(device.index for device in devices))))
                used |= {device.key for device in devices}
            if len(nodes) == resources.num_nodes:
                return tuple(nodes)
        return None

    def has_room(self, resources: Resources, kind: DeviceKind) -> bool:
        """Whether `place` would find anything."""
        if resources.num_nodes == 1:
            return any(True for _ in self._fits(resources, kind, frozenset()))
        return self.place(resources, kind) is not None

    def take(self, run_id: str, nodes: Iterable[Node]) -> dict[str, HeldDevice]:
        """Remove the devices of a placement. Returns them by key."""
        taken = {
            device.key: HeldDevice(node.worker_id, node.kind, device.index, run_id)
            for node in nodes
            for device in self._free[node.worker_id, node.kind]
            if device.index in node.indices
        }
        for key in taken:
            for offer in self._offers[key]:
                self._free[offer] = [device for device in self._free[offer] if device.key != key]
        return taken

    def _fits(
        self, resources: Resources, kind: DeviceKind, without: frozenset[str]
    ) -> Iterator[tuple[tuple[int, ...], str, list[Device]]]:
        """Per worker with room for one node: how well it fits, its id, the devices."""
        count = resources.num_devices(kind)
        for worker in self.workers:
            if not resources.labels <= worker.labels:
                continue
            free = self._free[worker.id, kind]
            if len(free) < count:
                continue
            usable = free[bisect_left(free, resources.min_memory_bytes, key=_memory) :]
            if without:
                usable = [device for device in usable if device.key not in without]
            if len(usable) >= count:
                # CPU runs keep off the hosts of GPUs, whose cores feed them.
                fit = (len(worker.gpus) if kind == DeviceKind.CPU else 0, len(usable), usable[count - 1].memory_bytes)
                yield fit, worker.id, usable[:count]
