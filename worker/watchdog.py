"""Notices a run that hangs: its processes live, and it makes no step."""

import time
from collections.abc import Callable
from pathlib import Path


class Watchdog:
    """Times the standstill of an attempt's pulse on its own clock. Before the first step nothing is timed: loading and
    tokenizing take as long as they take.
    """

    def __init__(self, pulse: Path, *, limit_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._pulse = pulse
        self._limit_s = limit_s
        self._clock = clock
        self._beat = 0
        self._since = clock()

    def complaint(self) -> str:
        """What is wrong, in one sentence; empty while training gets on, or has not begun."""
        try:
            beat = self._pulse.stat().st_mtime_ns
        except OSError:  # it has not begun, or the disk does not answer
            beat = 0
        now = self._clock()
        if beat == 0 or beat != self._beat:
            self._beat, self._since = beat, now
        if now - self._since <= self._limit_s:
            return ""
        return f"training made no step for {now - self._since:.0f} s: one of its processes or its GPU hangs"
