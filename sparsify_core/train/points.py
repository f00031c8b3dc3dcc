"""From the numbers of an optimizer step on the device to points of the charts, checked on the way."""

import math
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from sparsify_core.config import RunConfig
from sparsify_core.errors import DataError, NonFiniteLossError
from sparsify_core.metrics import series_key
from sparsify_core.train.placement import Placement
from sparsify_core.train.report import Reporter
from sparsify_core.train.step import StepStats

RATE_WINDOW_S = 10.0
"""The throughput is that of steps within so long: a mean since the start would not show that training became slow."""


class Throughput:
    """Steps per second, now."""

    def __init__(self, step: int, at_s: float) -> None:
        self._start = (step, at_s)
        self._marks: deque[tuple[int, float]] = deque()

    def after(self, step: int, at_s: float) -> float:
        """Of the steps behind the newest one that ended `RATE_WINDOW_S` or longer ago, or behind the first, which holds
        the kernels' compilation.

        Args:
            at_s: when `step` ended, on a clock that stands still while training is paused.
        """
        self._marks.append((step, at_s))
        while len(self._marks) > 2 and self._marks[1][1] <= at_s - RATE_WINDOW_S:
            self._marks.popleft()
        first, began = self._marks[0] if len(self._marks) > 1 else self._start
        return (step - first) / max(at_s - began, 1e-9)


@dataclass
class _Pending:
    """A step whose numbers may still be on their way from the device; `arrived` None: they are here."""

    step: int
    stats: Tensor
    arrived: torch.cuda.Event | None
    values: dict[str, float]


class PointLog:
    """Reports steps in their order. On CUDA each is read when the next one is under way, so that the device never waits
    for the host in between; `flush` reads at once.

    Args:
        tokens_per_step: of all processes.
    """

    def __init__(
        self, config: RunConfig, placement: Placement, reporter: Reporter, *, num_steps: int, tokens_per_step: int
    ) -> None:
        self._config = config
        self._placement = placement
        self._reporter = reporter
        self._num_steps = num_steps
        self._tokens_per_step = tokens_per_step
        self._is_end_to_end = config.loss_fn != "fvu"
        self._names = ["fvu", "dead_frac", "l0"]
        if config.auxk_alpha:
            self._names.append("auxk")
        if config.sae.multi_topk:
            self._names.append("multi_topk_fvu")
        self._pending: _Pending | None = None
        self._paused_s = 0.0
        self.start(0)

    def start(self, first_step: int) -> None:
        """Time counts from here."""
        self._throughput = Throughput(first_step, self._now_s())

    def _now_s(self) -> float:
        return time.monotonic() - self._paused_s

    @contextmanager
    def pause(self) -> Iterator[None]:
        """Time inside does not count for the throughput."""
        before = time.monotonic()
        yield
        self._paused_s += time.monotonic() - before

    def note(self, step: int, stats: Tensor, values: dict[str, float]) -> None:
        """Take the numbers of `step`, (coders, fields of StepStats) on the device, and report the step before.

        Raises NonFiniteLossError or DataError when those cannot be trained on.
        """
        arrived = None
        if stats.is_cuda:
            if self._is_logged(step):  # asked of the host's allocator, not of the device
                values = values | {"gpu_memory": float(torch.cuda.max_memory_allocated(stats.device))}
            stats = stats.to("cpu", non_blocking=True)
            arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
            arrived.record()
        previous, self._pending = self._pending, _Pending(step, stats, arrived, values)
        if previous is not None:
            self._report(previous)
        if arrived is None:
            self.flush()

    def flush(self) -> None:
        """Report what is pending. Raises as `note`."""
        if self._pending is not None:
            pending, self._pending = self._pending, None
            self._report(pending)

    def _report(self, pending: _Pending) -> None:
        if pending.arrived is not None:
            pending.arrived.synchronize()  # sync: the one of a step
        step, rows = pending.step, [StepStats(*row) for row in pending.stats.tolist()]
        values: dict[str, float] = {}
        for coder, numbers in zip(self._placement.coders, rows, strict=True):
            self._check(step, coder.name, numbers)
            # End to end, the FVU may be undefined for a step; there is no point to draw then.
            own = {series_key(name, coder.name): getattr(numbers, name) for name in self._names}
            values |= {key: value for key, value in own.items() if math.isfinite(value)}
        if self._is_end_to_end:  # the same for all coders of a seed, so this is the mean over seeds
            values[series_key(f"{self._config.loss_fn}_loss")] = sum(row.token_loss for row in rows) / len(rows)
        values |= pending.values
        values["tokens_per_s"] = self._throughput.after(step, self._now_s()) * self._tokens_per_step
        values["tokens"] = float(step * self._tokens_per_step)
        if self._is_logged(step):
            self._reporter.metrics(step, values)
            self._reporter.progress(step, self._num_steps, values)

    def _is_logged(self, step: int) -> bool:
        return step % self._config.log_every == 0 or step == self._num_steps

    def _check(self, step: int, coder: str, numbers: StepStats) -> None:
        if numbers.kept_tokens == 0:
            raise DataError(f"all tokens of step {step} are excluded: exclude fewer, or use larger batches")
        loss = numbers.token_loss if self._is_end_to_end else numbers.fvu
        if not math.isfinite(loss):
            raise NonFiniteLossError(
                f"the loss of {coder} is {loss} at step {step}: lower lr, or look for outliers in the activations "
                "(exclude_first 1 leaves out the attention sink)"
            )
