"""Named spans around the parts of a step; they cost next to nothing until a `StepClock` runs.

    with Span("encode"): ...        or, on a function,        @Span("encode")

Spans nest: time inside an inner one is that part's alone, so the parts of a step add up to the whole. One clock runs at
a time in a process, and spans are entered by the thread that runs it.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import wraps
from itertools import pairwise
from typing import Any, ParamSpec, TypeVar

import torch

from sparsify_core.parts import Part

P = ParamSpec("P")
T = TypeVar("T")

_clock: "StepClock | None" = None


class Span:
    """A stretch of code that belongs to `part`: what stands in its block, or the function that it decorates."""

    def __init__(self, part: Part) -> None:
        self._part = part

    def __call__(self, function: Callable[P, T]) -> Callable[P, T]:
        @wraps(function)
        def timed(*args: P.args, **kwargs: P.kwargs) -> T:
            if _clock is None:
                return function(*args, **kwargs)
            with self:
                return function(*args, **kwargs)

        return timed

    def __enter__(self) -> None:
        if _clock is not None:
            _clock.enter(self._part)

    def __exit__(self, *_: object) -> None:
        if _clock is not None:
            _clock.leave()


def spanned(part: Part, items: Iterable[T]) -> Iterator[T]:
    """`items`, with the wait for each of them as a span."""
    iterator = iter(items)
    while True:
        try:
            with Span(part):
                item = next(iterator)
        except StopIteration:
            return
        yield item


class StepClock:
    """Times one step by part, on the device's own time line: events in CUDA's current stream, which nobody waits for,
    or the host's clock on a CPU.

    Every change of part is a mark; what lies between two marks belongs to the innermost span that was open.
    """

    def __init__(self, device: torch.device) -> None:
        self._on_cuda = device.type == "cuda"
        self._open: list[Part] = ["other"]
        self._marks: list[tuple[Part, Any]] = []

    @contextmanager
    def running(self) -> Iterator[None]:
        """The step to time is what happens inside."""
        global _clock
        self._mark()
        _clock = self
        try:
            yield
        finally:
            _clock = None
            self._mark()

    def enter(self, part: Part) -> None:
        self._open.append(part)
        self._mark()

    def leave(self) -> None:
        self._open.pop()
        self._mark()

    def is_read_at_once(self) -> bool:
        """Whether the device is done, so that `milliseconds` does not wait for it."""
        return not self._on_cuda or bool(self._marks[-1][1].query())

    def milliseconds(self) -> dict[Part, float]:
        """Time by part, those alone that occurred and `other`."""
        if self._on_cuda:
            self._marks[-1][1].synchronize()  # sync: none when is_read_at_once
        found: dict[Part, float] = {}
        for (part, start), (_, end) in pairwise(self._marks):
            found[part] = found.get(part, 0.0) + (start.elapsed_time(end) if self._on_cuda else 1e3 * (end - start))
        return found

    def _mark(self) -> None:
        moment: Any
        if self._on_cuda:
            moment = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
            moment.record()
        else:
            moment = time.perf_counter()
        self._marks.append((self._open[-1], moment))
