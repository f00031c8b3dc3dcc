"""Series read from the database: every point, or buckets of 2^n steps when there are more than were asked for."""

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from sqlmodel import Session, col, select

from server.db.series.buckets import Buckets, Point, merged, newest_per_step, of_points, width_for
from server.db.tables import MetricPoint

SeriesId = tuple[str, str]
"""Id of the run, and key."""


class Thinned(NamedTuple):
    """A series in buckets of `width` steps; with a width of 1 these are its points."""

    width: int
    buckets: Buckets


def read_series(
    session: Session,
    run_ids: Sequence[str],
    keys: Sequence[str] | None = None,
    *,
    start: int | None = None,
    end: int | None = None,
    max_points: int,
    share_width: bool = False,
) -> dict[SeriesId, Thinned]:
    """Every series of these runs, or those of `keys`, over the buckets that meet steps `start` to `end`, both included.

    The width is the smallest that makes at most `max_points` buckets: 1 where there are no more points than that. With
    `share_width` all have the widest one. A series without points there is left out.
    """
    stored = {name: _Stored(newest_per_step(points)) for name, points in _rows(session, run_ids, keys).items()}
    first, last = start or 0, _END if end is None else end
    widths = {name: series.width(first, last, max_points) for name, series in stored.items()}
    if share_width:
        widths = dict.fromkeys(widths, max(widths.values(), default=1))
    thinned = {name: Thinned(widths[name], series.read(first, last, widths[name])) for name, series in stored.items()}
    return {name: one for name, one in thinned.items() if one.buckets.steps}


_END = 2**62


class _Stored(NamedTuple):
    points: list[Point]

    def width(self, first: int, last: int, max_points: int) -> int:
        inside = [point.step for point in self.points if first <= point.step <= last]
        return 1 if len(inside) <= max_points else width_for(inside[0], inside[-1], max_points)

    def read(self, first: int, last: int, width: int) -> Buckets:
        low, high = first // width * width, (last // width + 1) * width
        return merged(of_points([point for point in self.points if low <= point.step < high]), width)


def _rows(session: Session, run_ids: Sequence[str], keys: Sequence[str] | None) -> dict[SeriesId, list[Point]]:
    columns = (MetricPoint.run_id, MetricPoint.key, MetricPoint.step, MetricPoint.attempt, MetricPoint.seq)
    statement = select(*columns, MetricPoint.ts, MetricPoint.value, MetricPoint.kind)  # type: ignore[call-overload]
    statement = statement.where(col(MetricPoint.run_id).in_(run_ids))
    if keys is not None:
        statement = statement.where(col(MetricPoint.key).in_(keys))
    found: dict[SeriesId, list[Point]] = defaultdict(list)
    for run_id, key, step, attempt, seq, ts, value, kind in session.exec(statement):
        found[run_id, key].append(Point(step, attempt, seq, ts, float(kind) if value is None else value))
    return found
