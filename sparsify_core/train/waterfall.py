"""Where the time of a step goes, measured every `waterfall_every` steps, reported once the device is done."""

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from sparsify_core.events import StepTimed
from sparsify_core.parts import WARM_UP_STEPS, Part
from sparsify_core.timing import StepClock
from sparsify_core.train.report import Reporter


class Waterfall:
    """Measures steps of this process.

    Args:
        every: steps between two measurements; 0 measures none.
        floor: the least milliseconds by part of the step that was just made; None where they are not known.
    """

    def __init__(
        self, every: int, device: torch.device, reporter: Reporter, floor: Callable[[], dict[Part, float]] | None
    ) -> None:
        self._every = every
        self._device = device
        self._reporter = reporter
        self._floor = floor
        self._first_step = 0
        self._pending: deque[tuple[int, StepClock, dict[Part, float] | None]] = deque()

    def start(self, first_step: int) -> None:
        """The attempt begins behind step `first_step`."""
        self._first_step = first_step

    @contextmanager
    def step(self, step: int) -> Iterator[None]:
        """Inside, step number `step` (from 1) is carried out."""
        while self._pending and self._pending[0][1].is_read_at_once():
            self._report()
        if not self._is_due(step):
            yield
            return
        clock = StepClock(self._device)
        with clock.running():
            yield
        # Behind the step, which set the k that its floor is counted with.
        floor = self._floor() if self._floor is not None else None
        self._pending.append((step, clock, floor))

    def flush(self) -> None:
        """Report what is pending; waits for the device."""
        while self._pending:
            self._report()

    def _is_due(self, step: int) -> bool:
        warm = step - self._first_step - WARM_UP_STEPS
        return self._every > 0 and warm > 0 and (warm == 1 or step % self._every == 0)

    def _report(self) -> None:
        step, clock, floor = self._pending.popleft()
        parts = clock.milliseconds()
        self._reporter.event(
            StepTimed(
                step=step,
                total_ms=sum(parts.values()),
                parts_ms={**parts},
                floor_ms=None if floor is None else {**floor},
            )
        )
