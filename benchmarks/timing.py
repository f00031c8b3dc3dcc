"""Milliseconds: of single calls by CUDA events, of training steps by the clock at the borders of windows."""

import argparse
import itertools
import statistics
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch


class Spread(NamedTuple):
    """Of repeated measurements."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        digits = 0 if self.median >= 1000 else 1 if self.median >= 100 else 2 if self.median >= 1 else 3
        return f"{self.median:.{digits}f} ({self.low:.{digits}f}–{self.high:.{digits}f})"


def spread(values: Sequence[float]) -> Spread:
    """Median, smallest and largest of at least one value."""
    return Spread(statistics.median(values), min(values), max(values))


class Windows(NamedTuple):
    """Which steps are timed: all but the first `warm_up`, `length` at a time."""

    warm_up: int
    length: int

    def num_steps(self, number: int) -> int:
        """Of a run with so many windows; behind the last one a step that only ends it."""
        return self.warm_up + self.length * number + 1

    def is_border(self, step: int) -> bool:
        """Whether a window ends behind step number `step`, counted from 1, or the first one begins there."""
        return step >= self.warm_up and (step - self.warm_up) % self.length == 0

    def milliseconds(self, ends: Sequence[float]) -> list[float]:
        """Per step, the mean of each window, from the times in seconds at which steps 1, 2, ... had ended.

        Raises ValueError when there are too few for one window.
        """
        borders = [end for step, end in enumerate(ends, start=1) if self.is_border(step)]
        if len(borders) < 2:
            raise ValueError(f"{len(ends)} steps hold no window of {self.length} behind {self.warm_up} of warm-up")
        return [1e3 * (after - before) / self.length for before, after in itertools.pairwise(borders)]


def add_arguments(parser: argparse.ArgumentParser, *, length: int = 3, warm_up: int = 4, windows: int = 4) -> None:
    """How often and how long each side runs, with these defaults, in windows of `length` steps."""
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--warm_up", type=int, default=warm_up, help="steps of every run that do not count")
    parser.add_argument("--windows", type=int, default=windows, help=f"of {length} steps, that count in every run")


def synchronize() -> None:
    """Wait for the GPU, where there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def time_calls(calls: Sequence[Callable[[], object]], *, repeats: int = 15, warm_up: int = 3) -> Spread:
    """Milliseconds of one call; the calls take turns, so that each finds its inputs out of the cache."""
    for number in range(warm_up):
        calls[number % len(calls)]()
    synchronize()
    if not torch.cuda.is_available():
        return spread([_seconds(calls[number % len(calls)]) * 1e3 for number in range(repeats)])
    pairs = []
    for number in range(repeats):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        begin.record()
        calls[number % len(calls)]()
        end.record()
        pairs.append((begin, end))
    torch.cuda.synchronize()
    return spread([begin.elapsed_time(end) for begin, end in pairs])


def _seconds(call: Callable[[], object]) -> float:
    before = time.perf_counter()
    call()
    return time.perf_counter() - before
