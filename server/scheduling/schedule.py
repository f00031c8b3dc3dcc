"""One scheduling pass."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from server.scheduling.explain import Explainer
from server.scheduling.pool import Pool, held_keys
from server.scheduling.reservation import PATIENCE_S, Reservation, reserve
from server.scheduling.resources import (
    HeldDevice,
    Node,
    Placement,
    QueuedRun,
    Resources,
    RunningRun,
    WorkerView,
    kind_for,
)

__all__ = ["PATIENCE_S", "Schedule", "schedule"]


@dataclass(frozen=True)
class Schedule:
    """What a pass decided."""

    placements: list[Placement]
    waits_for: dict[str, str]
    """Id of every run that stays queued -> what it waits for, in words."""


def schedule(
    queued: Sequence[QueuedRun],
    workers: Sequence[WorkerView],
    held: Sequence[HeldDevice],
    running: Mapping[str, RunningRun],
    *,
    paused: str | None = None,
) -> Schedule:
    """Give free devices to queued runs: higher priority first, then lower rank, then the older one.

    A run that does not fit is passed by smaller ones behind it (backfill), but the devices that it waits for are kept
    for it against every run that would not end in time, as far as ends are known (EASY backfill); where they are not,
    against every run once it has waited for `PATIENCE_S` or its devices are about to become free.

    Args:
        held: leased devices and those set aside.
        running: id -> run, of the runs that hold devices.
        paused: why the whole queue stands still, if it does; may be empty.
    """
    return _Pass(workers, held, running).carry_out(sorted(queued, key=lambda run: run.order), paused)


class _Pass:
    def __init__(
        self, workers: Sequence[WorkerView], held: Sequence[HeldDevice], running: Mapping[str, RunningRun]
    ) -> None:
        self._alive = [worker for worker in workers if worker.is_alive]
        self._running = dict(running)
        self._held = held_keys(held, workers)
        self._pool = Pool([worker for worker in self._alive if not worker.is_draining], self._held)
        self._reservation: Reservation | None = None
        self._without_room: set[tuple[Resources, bool]] = set()

    def carry_out(self, queued: Sequence[QueuedRun], paused: str | None) -> Schedule:
        placements: list[Placement] = []
        waiting: list[QueuedRun] = []
        for run in queued:
            nodes = self._place(run) if paused is None else None
            if nodes is None:
                waiting.append(run)
            else:
                placements.append(Placement(run.id, nodes))
        explainer = Explainer(self._alive, self._pool, self._held, self._running, self._reservation)
        if paused is None:
            words = {run.id: explainer.explain(run, position) for position, run in enumerate(waiting, 1)}
        else:
            reason = f"the queue is paused: {paused}" if paused else "the queue is paused"
            words = {run.id: f"{reason}; position {position}" for position, run in enumerate(waiting, 1)}
        return Schedule(placements, words)

    def _place(self, run: QueuedRun) -> tuple[Node, ...] | None:
        """Take devices for a run, or reserve some for it if it is the first that finds none."""
        may_pass = self._reservation is None or self._reservation.lets_pass(run)
        if (run.resources, may_pass) in self._without_room:
            return None
        kind, nodes = kind_for(run.resources, self._alive), None
        if self._reservation is not None:  # devices that nobody waits for come first
            nodes = self._pool.place(run.resources, kind, without=self._reservation.keys)
        if nodes is None and may_pass:
            nodes = self._pool.place(run.resources, kind)
        if nodes is None:
            self._without_room.add((run.resources, may_pass))
            if self._reservation is None:
                self._reservation = reserve(run, kind, self._pool.workers, self._busy_s())
            return None
        self._take(run, nodes)
        return nodes

    def _take(self, run: QueuedRun, nodes: tuple[Node, ...]) -> None:
        self._running[run.id] = RunningRun(run.name, run.duration_s)
        self._held |= self._pool.take(run.id, nodes)

    def _busy_s(self) -> dict[str, float]:
        """Key of a held device -> when it becomes free, for `reserve`."""
        return {key: math.nan if one.is_quarantined else self._remaining_s(one) for key, one in self._held.items()}

    def _remaining_s(self, device: HeldDevice) -> float:
        run = self._running.get(device.run_id)
        return math.inf if run is None or run.remaining_s is None else run.remaining_s
