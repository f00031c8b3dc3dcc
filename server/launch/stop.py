"""Ctrl-C and SIGTERM as something to ask for between two steps: handlers that do more end up in deadlocks."""

import signal
from types import FrameType


class StoppedError(Exception):
    """The user wants everything to end."""


class StopRequest:
    """Counts requests; the second one means: at once."""

    def __init__(self) -> None:
        self._count = 0

    def listen(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._handle)

    def check(self) -> None:
        """Raise StoppedError once a stop was asked for."""
        if self._count:
            raise StoppedError

    def is_impatient(self) -> bool:
        return self._count > 1

    def _handle(self, _signal: int, _frame: FrameType | None) -> None:
        self._count += 1
