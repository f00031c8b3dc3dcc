"""Series of runs as charts want them, read from the database."""

import csv
import io
import math
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypedDict

from sqlmodel import Session, col, select

from server.db.series import Buckets, Thinned, as_json, keys_of, read_series, spans
from server.db.session import Database
from server.db.tables import Attempt
from server.errors import InvalidError

MAX_POINTS = 1500
MAX_RUNS = 50
_MAX_TOTAL = 2_000_000
"""Points of one answer, which is built in memory: about 100 MB of JSON."""
_AT_ONCE = 100
"""Series that are read together: of each thousands of points may be thinned out."""
TOKENS = "tokens"


class Series(TypedDict):
    """One series in buckets of `width` steps, ordered by step; non-finite values are the strings `nan`, `inf`, `-inf`.

    Steps, values and times are those of each bucket's last point, `min` and `max` are over its finite values: None
    where there is none, and no lists at all with a width of 1, when these are the points themselves.
    """

    steps: list[int]
    values: list[float | str]
    ts: list[float]
    min: list[float | None] | None
    max: list[float | None] | None
    width: int


def series(
    session: Session,
    run_id: str,
    keys: Sequence[str] | None = None,
    *,
    start: int | None = None,
    end: int | None = None,
    max_points: int = MAX_POINTS,
) -> dict[str, Series]:
    """Every series of a run, or those of `keys`, as buckets that meet steps `start` to `end`, both included.

    Raises InvalidError when these are too many for so many points.
    """
    wanted = keys_of(session, run_id) if keys is None else sorted(_storable(keys))
    _check_size(len(wanted), max_points)
    shown: dict[str, Series] = {}
    for at in range(0, len(wanted), _AT_ONCE):
        some = wanted[at : at + _AT_ONCE]
        found = read_series(session, [run_id], some, start=start, end=end, max_points=max_points)
        shown |= {key: _shown(one) for (_, key), one in sorted(found.items())}
    return shown


def overlay(
    session: Session,
    run_ids: Sequence[str],
    keys: Sequence[str],
    *,
    start: int | None = None,
    end: int | None = None,
    max_points: int = MAX_POINTS,
) -> dict[str, dict[str, Series]]:
    """The same series of several runs, by run and key, all in buckets of one width.

    Raises InvalidError when they are too many for so many points.
    """
    wanted = _storable(keys)
    _check_size(len(run_ids) * len(wanted), max_points)
    found = read_series(session, run_ids, wanted, start=start, end=end, max_points=max_points, share_width=True)
    by_run: dict[str, dict[str, Series]] = {run_id: {} for run_id in run_ids}
    for (run_id, key), one in sorted(found.items()):
        by_run[run_id][key] = _shown(one)
    return by_run


def csv_pages(database: Database, run_id: str, keys: Sequence[str] | None) -> Iterator[str]:
    """Every point of these series, or of all, as CSV; `tokens` is what the run had seen at that step, where it is
    known. Each page is read by itself, so that a slow reader keeps nobody.
    """
    with database.read() as session:
        names = keys_of(session, run_id) if keys is None else list(_storable(keys))
        stretches = [(name, *span) for name in names for span in spans(session, run_id, name)]
    yield _csv([("key", "step", "tokens", "ts", "value")])
    for name, start, end in stretches:
        with database.read() as session:
            found = read_series(session, [run_id], [name, TOKENS], start=start, end=end, max_points=sys.maxsize)
        if (run_id, name) in found:
            yield _csv(_rows(name, found[run_id, name].buckets, found.get((run_id, TOKENS))))


def _rows(key: str, points: Buckets, tokens: Thinned | None) -> Iterator[tuple[Any, ...]]:
    seen = dict(zip(tokens.buckets.steps, tokens.buckets.values, strict=True)) if tokens else {}
    for step, ts, value in zip(points.steps, points.ts, points.values, strict=True):
        yield key, step, int(seen[step]) if math.isfinite(seen.get(step, math.nan)) else "", ts, value


def _csv(rows: Iterable[tuple[Any, ...]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def cursor(session: Session, run_id: str) -> str:
    """Where the run's event stream stands, as `attempt.seq`: it goes on behind that. Read it before the series."""
    attempt, seq = position(session, run_id)
    return f"{attempt}.{seq}"


def position(session: Session, run_id: str) -> tuple[int, int]:
    """The newest event of the run that is in the database, as (attempt, seq); (0, 0) before the first."""
    statement = (
        select(Attempt.attempt, Attempt.event_seq)
        .where(Attempt.run_id == run_id, Attempt.event_seq > 0)
        .order_by(col(Attempt.attempt).desc())
        .limit(1)
    )
    newest = session.exec(statement).first()
    return (newest[0], newest[1]) if newest else (0, 0)


def _check_size(num_series: int, max_points: int) -> None:
    if num_series * max_points <= _MAX_TOTAL:
        return
    message = (
        f"{num_series:,} series of {max_points:,} points are more than {_MAX_TOTAL:,} points: "
        f"ask for max_points={_MAX_TOTAL // num_series}, or for fewer series at once."
    )
    raise InvalidError.field(("query", "max_points"), message, "too_many_points")


def _storable(keys: Sequence[str]) -> list[str]:
    """PostgreSQL has no text with a zero byte in it."""
    return [key for key in dict.fromkeys(keys) if "\x00" not in key]


def _shown(one: Thinned) -> Series:
    steps, ts, values, lows, highs = one.buckets
    is_raw = one.width == 1
    return {
        "steps": list(steps),
        "values": [as_json(value) for value in values],
        "ts": list(ts),
        "min": None if is_raw else [value if math.isfinite(value) else None for value in lows],
        "max": None if is_raw else [value if math.isfinite(value) else None for value in highs],
        "width": one.width,
    }
