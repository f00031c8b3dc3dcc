"""Orderly stop: the first SIGTERM or Ctrl-C asks for it, the second ends the process at once."""

import os
import signal
import time
from types import FrameType

_RELAY_S = 2.0
"""A signal to a process group reaches a rank directly and again through torchrun; within this time it counts once."""


class StopRequest:
    """Becomes true when a stop was asked for. Install it once, in the main thread, when there is something to save."""

    def __init__(self) -> None:
        self._asked_at: float | None = None

    def install(self) -> None:
        signal.signal(signal.SIGTERM, self._handle)
        signal.signal(signal.SIGINT, self._handle)

    def __bool__(self) -> bool:
        return self._asked_at is not None

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self._asked_at is None:
            self._asked_at = now
        elif now - self._asked_at > _RELAY_S:
            os._exit(128 + signum)
