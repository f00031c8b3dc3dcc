"""Series of runs as charts want them, read from the database."""

import math
from collections.abc import Sequence
from typing import TypedDict

from sqlalchemy import func
from sqlmodel import Session, col, select

from server.db.series import Thinned, as_json, read_series
from server.db.tables import Attempt, MetricPoint
from sparsify_core.metrics import split_key

MAX_POINTS = 1500
MAX_RUNS = 50
SPARK_POINTS = 48


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
    """Every series of a run, or those of `keys`, as buckets that meet steps `start` to `end`, both included."""
    found = read_series(session, [run_id], _storable(keys), start=start, end=end, max_points=max_points)
    return {key: _shown(one) for (_, key), one in sorted(found.items())}


def overlay(
    session: Session,
    run_ids: Sequence[str],
    keys: Sequence[str],
    *,
    start: int | None = None,
    end: int | None = None,
    max_points: int = MAX_POINTS,
) -> dict[str, dict[str, Series]]:
    """The same series of several runs, by run and key, all in buckets of one width."""
    found = read_series(
        session, run_ids, _storable(keys), start=start, end=end, max_points=max_points, share_width=True
    )
    by_run: dict[str, dict[str, Series]] = {run_id: {} for run_id in run_ids}
    for (run_id, key), one in sorted(found.items()):
        by_run[run_id][key] = _shown(one)
    return by_run


def spark(session: Session, run_id: str) -> list[float | None]:
    """A few training FVUs of the run's first coder, for a sparkline."""
    first = select(func.min(MetricPoint.key)).where(
        MetricPoint.run_id == run_id, col(MetricPoint.key).startswith("fvu")
    )
    key = session.exec(first).one()
    if key is None or split_key(key)[0] != "fvu":
        return []
    values = series(session, run_id, [key], max_points=SPARK_POINTS)[key]["values"]
    return [value if isinstance(value, float) else None for value in values]


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


def _storable(keys: Sequence[str] | None) -> list[str] | None:
    """PostgreSQL has no text with a zero byte in it."""
    return None if keys is None else [key for key in keys if "\x00" not in key]


def _shown(one: Thinned) -> Series:
    steps, ts, values, lows, highs = one.buckets.columns
    is_raw = one.width == 1
    return {
        "steps": list(steps),
        "values": [as_json(value) for value in values],
        "ts": list(ts),
        "min": None if is_raw else [value if math.isfinite(value) else None for value in lows],
        "max": None if is_raw else [value if math.isfinite(value) else None for value in highs],
        "width": one.width,
    }
