"""Hot rows into chunks. Whoever calls these holds the lock of the run's row: ingest and sealing take turns."""

from collections.abc import Iterator
from itertools import takewhile
from typing import Any

from sqlalchemy import delete, exists, func, insert
from sqlmodel import Session, col, select

from server.db.series.buckets import Buckets, Point, merged, newest_per_step, of_points
from server.db.series.packing import pack_buckets, pack_points, unpack_points
from server.db.series.rows import number
from server.db.tables import TERMINAL, MetricChunk, MetricPoint, Run

HOT_POINTS = 1024
"""Rows of a series and attempt that become a chunk: reading a row takes as long as a bucket of a chunk."""
CHUNK_POINTS = 4096
"""Points of a whole chunk. Smaller neighbours are joined as soon as they make one."""
_COARSEST = 8
"""Buckets of a chunk that are so few have no coarser level."""
_ALL = 64


def unsealed(session: Session, run_id: str, *, at_least: int) -> list[tuple[str, int]]:
    """Keys and attempts of a run that have so many hot rows."""
    series = (col(MetricPoint.key), col(MetricPoint.attempt))
    counted = select(MetricPoint.key, MetricPoint.attempt).where(MetricPoint.run_id == run_id).group_by(*series)
    return [(key, attempt) for key, attempt in session.exec(counted.having(func.count() >= at_least))]


def ended_unsealed(session: Session) -> str | None:
    """Id of a run that has ended and has hot rows, if there is one."""
    has_rows = exists().where(col(MetricPoint.run_id) == col(Run.id))
    return session.exec(select(Run.id).where(col(Run.state).in_(TERMINAL), has_rows).limit(1)).first()


def seal_chunk(session: Session, run_id: str, key: str, attempt: int) -> None:
    """Move the oldest hot rows of a series, `CHUNK_POINTS` at most, into a chunk, and join small ones."""
    mine = (col(MetricPoint.run_id) == run_id, col(MetricPoint.key) == key, col(MetricPoint.attempt) == attempt)
    columns = (MetricPoint.step, MetricPoint.seq, MetricPoint.ts, MetricPoint.value)
    oldest = select(*columns, MetricPoint.kind).where(*mine)  # type: ignore[call-overload]
    rows = session.connection().execute(oldest.order_by(col(MetricPoint.seq)).limit(CHUNK_POINTS)).all()
    points = [Point(step, attempt, seq, ts, number(value, kind)) for step, seq, ts, value, kind in rows]
    if points:
        _add(session, run_id, key, newest_per_step(points))
        session.execute(delete(MetricPoint).where(*mine, col(MetricPoint.seq) <= points[-1].seq))
        _join_newest(session, run_id, key, attempt)


def _join_newest(session: Session, run_id: str, key: str, attempt: int) -> None:
    """Make one chunk of the newest ones of a series that are not whole, if together they are."""
    mine = (col(MetricChunk.run_id) == run_id, col(MetricChunk.key) == key, col(MetricChunk.attempt) == attempt)
    places = select(MetricChunk.first_seq, MetricChunk.num_points).where(*mine, MetricChunk.level == 0)
    newest_first = session.exec(places.order_by(col(MetricChunk.first_seq).desc()))
    small = list(takewhile(lambda place: place[1] < CHUNK_POINTS, newest_first))
    if len(small) < 2 or sum(num_points for _, num_points in small) < CHUNK_POINTS:
        return
    theirs = (*mine, col(MetricChunk.first_seq).in_([first_seq for first_seq, _ in small]))
    parts = session.exec(select(MetricChunk.data).where(*theirs, MetricChunk.level == 0)).all()
    session.execute(delete(MetricChunk).where(*theirs))
    _add(session, run_id, key, newest_per_step(point for data in parts for point in unpack_points(data, attempt)))


def seal_points(session: Session, run_id: str, key: str, points: list[Point]) -> None:
    """Points of one attempt, ordered by event, into chunks without having been rows."""
    for start in range(0, len(points), CHUNK_POINTS):
        _add(session, run_id, key, newest_per_step(points[start : start + CHUNK_POINTS]))


def take_back(session: Session, run_id: str, *, attempt: int, behind: int) -> None:
    """Forget what attempts before this one have sealed behind a step."""
    mine = (col(MetricChunk.run_id) == run_id, col(MetricChunk.attempt) < attempt)
    session.execute(delete(MetricChunk).where(*mine, col(MetricChunk.first_step) > behind))
    columns = (MetricChunk.key, MetricChunk.attempt, MetricChunk.first_seq, MetricChunk.data)
    cut = select(*columns).where(*mine, MetricChunk.last_step > behind, MetricChunk.level == 0)
    for key, of_attempt, first_seq, data in session.exec(cut).all():
        place = (col(MetricChunk.attempt) == of_attempt, col(MetricChunk.first_seq) == first_seq)
        session.execute(delete(MetricChunk).where(*mine, col(MetricChunk.key) == key, *place))
        _add(session, run_id, key, [point for point in unpack_points(data, of_attempt) if point.step <= behind])


def _add(session: Session, run_id: str, key: str, points: list[Point]) -> None:
    """One chunk of points that are ordered by step."""
    seqs = [point.seq for point in points]
    common = {
        "run_id": run_id,
        "key": key,
        "attempt": points[0].attempt,
        "first_seq": min(seqs),
        "last_seq": max(seqs),
        "first_step": points[0].step,
        "last_step": points[-1].step,
        "num_points": len(points),
    }
    levels = [(0, pack_points(points)), *((level, pack_buckets(one)) for level, one in _coarser(of_points(points)))]
    belows = [level for level, _ in levels[1:]] + [_ALL]
    rows: list[dict[str, Any]] = [
        common | {"level": level, "below": below, "data": data}
        for (level, data), below in zip(levels, belows, strict=True)
    ]
    session.execute(insert(MetricChunk), rows)


def _coarser(buckets: Buckets) -> Iterator[tuple[int, Buckets]]:
    """Levels above the points, each with half as many buckets as the one before or fewer, mostly with a quarter."""
    level = 0
    while len(buckets.steps) > _COARSEST:
        spacing = (buckets.steps[-1] - buckets.steps[0]) // (len(buckets.steps) - 1)
        level = max(level + 2, (spacing.bit_length() + 1) // 2 * 2)
        coarse = merged(buckets, 1 << level)
        if 2 * len(coarse.steps) <= len(buckets.steps):
            buckets = coarse
            yield level, buckets
