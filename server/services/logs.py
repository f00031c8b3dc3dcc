"""Reads the log of a run: by byte offset, as text; looks for words in it; gives all of it."""

import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass

from server.db.tables import TERMINAL, Run
from server.errors import NotFoundError
from server.services.text import coloured, printable
from server.settings import Settings

LIMIT_BYTES = 64_000
MAX_HITS = 200
SEARCH_S = 5.0
"""A gigabyte that lies in the page cache takes two, measured on one core of an AMD EPYC."""
_SCAN_BYTES = 4 << 20
_LINE_BYTES = 64 << 10
_SHOWN_BYTES = 400
_RANK = re.compile(rb"\[(?:rank|default)(\d{1,5})\]")
"""What torchrun writes before the lines of its processes, if there are several."""
LAUNCHER = re.compile(r"^E\d{4} .*torch/distributed/elastic/.*\] failed \(exitcode", re.MULTILINE)
"""Where torchrun begins to report that a training process has ended: a traceback of its own, and a table."""


@dataclass(frozen=True)
class LogChunk:
    """Bytes `offset` to `next_offset` of an attempt's log, as text."""

    attempt: int
    offset: int
    next_offset: int
    text: str


@dataclass(frozen=True)
class Hit:
    """A line that matches: its number from 1, the byte at which it begins, and its text, cut when it is long; the rank
    that wrote it, where it says so.
    """

    line: int
    offset: int
    text: str
    rank: int | None


@dataclass(frozen=True)
class Search:
    """Lines of an attempt's log that match; not `is_complete` when there are more, or when it took too long."""

    attempt: int
    hits: list[Hit]
    is_complete: bool


def tail(
    settings: Settings,
    run: Run,
    *,
    attempt: int | None = None,
    node: int = 0,
    offset: int | None = None,
    limit: int = LIMIT_BYTES,
    colours: bool = False,
) -> LogChunk:
    """Whole lines behind `offset`, or the last ones when it is None; of the newest attempt unless another is named.

    Args:
        node: which host's; the leader's unless another is named.
        colours: keep the escapes for colours.

    A last line without its end is given only when the attempt is over: more of it, or of a character, may follow.
    """
    number = run.attempt if attempt is None else attempt
    start = offset or 0
    try:
        with settings.run_dir(run.id).log(number, node).open("rb") as file:
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
    is_over = run.state in TERMINAL or number < run.attempt
    if not (is_over and start + len(block) >= size):
        block = block[: _whole(block, is_full=len(block) >= limit)]
    return LogChunk(number, start, start + len(block), coloured(block) if colours else printable(block))


def search(
    settings: Settings,
    run: Run,
    query: str,
    *,
    attempt: int | None = None,
    node: int = 0,
    rank: int | None = None,
    limit: int = MAX_HITS,
) -> Search:
    """The lines of an attempt's log that contain `query`, letters a to z in either case, the first `limit` of them.

    Args:
        rank: only lines that say that this process wrote them.
    """
    number = run.attempt if attempt is None else attempt
    needle, give_up_at = query.encode("utf-8", errors="replace").lower(), time.monotonic() + SEARCH_S
    hits: list[Hit] = []
    line, offset = 1, 0
    try:
        with settings.run_dir(run.id).log(number, node).open("rb") as file:
            while block := file.read(_SCAN_BYTES):
                block += file.readline(_LINE_BYTES)  # to the end of its last line
                hits += _hits(block, needle, rank, line=line, offset=offset, limit=limit + 1 - len(hits))
                if len(hits) > limit or time.monotonic() > give_up_at:
                    return Search(number, hits[:limit], is_complete=False)
                line, offset = line + block.count(b"\n"), offset + len(block)
    except (FileNotFoundError, NotADirectoryError):
        pass
    return Search(number, hits, is_complete=True)


def whole(settings: Settings, run: Run, *, attempt: int | None = None, node: int = 0) -> tuple[int, Iterator[bytes]]:
    """The size of an attempt's log, and all of it up to there as it was written: it may be growing.

    Raises NotFoundError when nothing has been written.
    """
    path = settings.run_dir(run.id).log(run.attempt if attempt is None else attempt, node)
    if not path.is_file():
        raise NotFoundError("This attempt has no log.")
    size = path.stat().st_size

    def blocks() -> Iterator[bytes]:
        left = size
        with path.open("rb") as file:
            while left and (block := file.read(min(left, _SCAN_BYTES))):
                left -= len(block)
                yield block

    return size, blocks()


def training_lines(text: str) -> list[str]:
    """The lines of a log that training wrote, without what torchrun reports behind them about its own end."""
    found = LAUNCHER.search(text)
    own = text[: found.start()] if found else text
    return own.rstrip().splitlines()


def _whole(block: bytes, *, is_full: bool) -> int:
    """Length of the part of `block` that ends with a line; all of it when it is full and has no line's end."""
    end = max(block.rfind(b"\n"), block.rfind(b"\r")) + 1
    return end or (len(block) if is_full else 0)


def _hits(block: bytes, needle: bytes, only: int | None, *, line: int, offset: int, limit: int) -> list[Hit]:
    """Up to `limit` matching lines, of one rank or of all, of a block that begins with line `line` at byte `offset`."""
    folded = block.lower()
    found: list[Hit] = []
    counted = 0
    at = folded.find(needle)
    while at >= 0 and len(found) < limit:
        start, end = block.rfind(b"\n", 0, at) + 1, block.find(b"\n", at)
        end = len(block) if end < 0 else end
        said = _RANK.match(block, start)
        rank = int(said[1]) if said else None
        if only is None or rank == only:
            line += block.count(b"\n", counted, start)
            counted = start
            first = max(start, at - _SHOWN_BYTES // 2)  # a long line is shown around the match
            text = printable(block[first : min(end, first + _SHOWN_BYTES)])
            found.append(Hit(line, offset + start, text, rank))
        at = folded.find(needle, end)
    return found
