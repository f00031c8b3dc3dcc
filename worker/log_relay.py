"""`python -m worker.log_relay`: copies what training writes (standard input) into its log (standard output), but no
flood of it.

A process that does nothing else, so that training hardly ever waits for it. What is too much is left out, with a line
that says so; the last of it comes at the end all the same, because that is where a trainer says why it died.
"""

import os
import sys
import time
from collections.abc import Callable

BURST_BYTES = 8 << 20
RATE_BYTES_PER_S = 128 << 10
MAX_BYTES = 256 << 20
"""Of one attempt's log."""
LAST_BYTES = 32 << 10
"""How much of what was left out comes at the end."""

_BLOCK_BYTES = 64 << 10


class LogRelay:
    """Writes to `descriptor` as much as the allowance permits: a burst, refilled at a steady rate."""

    def __init__(self, descriptor: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._descriptor = descriptor
        self._clock = clock
        self._room_bytes = float(BURST_BYTES)
        self._refilled_at = clock()
        self._written_bytes = 0
        self._left_out_bytes = 0
        self._last = b""
        self._is_at_line_start = True

    def take(self, block: bytes) -> None:
        """Write `block`, or as much of it as may be."""
        self._refill()
        if self._left_out_bytes:
            # Not before there is room for a second's worth: shreds would help nobody. And from a line's start on.
            start = block.find(b"\n") + 1
            if self._room() < RATE_BYTES_PER_S or start == 0:
                return self._leave_out(block)
            self._leave_out(block[:start])
            block = block[start:]
            if not self._mark():
                return self._leave_out(block)
        room = self._room()
        written = self._write(block[:room])
        return self._leave_out(block[written:])

    def finish(self) -> None:
        """Everything has come: say what is missing, and give its end."""
        if self._left_out_bytes:
            last = self._last
            self._left_out_bytes -= len(last)
            if self._left_out_bytes <= 0 or self._mark():
                self._write(last)

    def _refill(self) -> None:
        now = self._clock()
        self._room_bytes = min(BURST_BYTES, self._room_bytes + (now - self._refilled_at) * RATE_BYTES_PER_S)
        self._refilled_at = now

    def _room(self) -> int:
        return max(0, min(int(self._room_bytes), MAX_BYTES - self._written_bytes))

    def _leave_out(self, block: bytes) -> None:
        self._left_out_bytes += len(block)
        self._last = (self._last + block)[-LAST_BYTES:]

    def _mark(self) -> bool:
        """Say how much is missing here. Returns whether that could be written."""
        line = f"[truncated: {self._left_out_bytes:,} bytes of output were left out here, there was too much of it]\n"
        text = line if self._is_at_line_start else f"\n{line}"
        if self._write(text.encode()) < len(text):
            return False
        self._left_out_bytes, self._last = 0, b""
        return True

    def _write(self, block: bytes) -> int:
        """Returns how much was written: less than all on a full disk."""
        done = 0
        try:
            while done < len(block):
                done += os.write(self._descriptor, block[done:])
        except OSError as error:
            sys.stderr.write(f"log: {error}\n")
        if done:
            self._is_at_line_start = block[done - 1 : done] == b"\n"
        self._room_bytes -= done
        self._written_bytes += done
        return done


def main() -> int:
    relay = LogRelay(sys.stdout.fileno())
    while block := os.read(sys.stdin.fileno(), _BLOCK_BYTES):
        relay.take(block)
    relay.finish()
    return 0


if __name__ == "__main__":
    sys.exit(main())
