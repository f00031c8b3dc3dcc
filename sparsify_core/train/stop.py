"""Orderly stop: the first SIGTERM or Ctrl-C asks for it, the second ends the process at once."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_RELAY_S = 2.0
"""A signal to a process group reaches a rank directly and again through torchrun; within this time it counts once."""


class StopRequest:
    """Becomes true when a stop was asked for. Listens only where there is something to save, in the main thread."""

    def __init__(self) -> None:
        self._asked_at: float | None = None

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Inside, signals ask for a stop; before and after, they end the process as usual."""
        previous = {number: signal.signal(number, self._handle) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def __bool__(self) -> bool:
        return self._asked_at is not None

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self._asked_at is None:
            self._asked_at = now
        elif now - self._asked_at > _RELAY_S:
            os._exit(128 + signum)
