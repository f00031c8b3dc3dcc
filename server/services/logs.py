"""Reads the log of a run: by byte offset, as plain text."""

import os
import re
from dataclasses import dataclass

from server.db.tables import TERMINAL, Run
from server.services.text import printable
from server.settings import Settings

LIMIT_BYTES = 64_000
_LAUNCHER = re.compile(r"^E\d{4} .*torch/distributed/elastic/.*\] failed \(exitcode", re.MULTILINE)
"""Where torchrun begins to report that a training process has ended: a traceback of its own, and a table."""


@dataclass(frozen=True)
class LogChunk:
    """Bytes `offset` to `next_offset` of an attempt's log, as text."""

    attempt: int
    offset: int
    next_offset: int
    text: str


def tail(
    settings: Settings, run: Run, *, attempt: int | None = None, offset: int | None = None, limit: int = LIMIT_BYTES
) -> LogChunk:
    """Whole lines behind `offset`, or the last ones when it is None; of the newest attempt unless another is named.

    A last line without its end is given only when the run is over: more of it, or of a character, may follow.
    """
    number = run.attempt if attempt is None else attempt
    start = offset or 0
    try:
        with settings.run_dir(run.id).log(number).open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if offset is None:
                start = max(0, size - limit)
            elif start > size:
                start = size
            file.seek(start)
            block = file.read(limit)
    except (FileNotFoundError, NotADirectoryError):
        return LogChunk(number, 0, 0, "")
    if offset is None and start > 0:  # the first line is cut
        cut = block.find(b"\n") + 1
        start, block = start + cut, block[cut:]
    is_over = run.state in TERMINAL and start + len(block) >= size
    if not is_over:
        block = block[: _whole(block, is_full=len(block) >= limit)]
    return LogChunk(number, start, start + len(block), printable(block))


def training_lines(text: str) -> list[str]:
    """The lines of a log that training wrote, without what torchrun reports behind them about its own end."""
    found = _LAUNCHER.search(text)
    own = text[: found.start()] if found else text
    return own.rstrip().splitlines()


def _whole(block: bytes, *, is_full: bool) -> int:
    """Length of the part of `block` that ends with a line; all of it when it is full and has no line's end."""
    end = max(block.rfind(b"\n"), block.rfind(b"\r")) + 1
    return end or (len(block) if is_full else 0)
