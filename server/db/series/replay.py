"""Points in the order of their events, for a stream that goes on behind one of them."""

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import tuple_
from sqlmodel import Session, col, select

from server.db.series.buckets import Point
from server.db.series.packing import unpack_points
from server.db.series.rows import number
from server.db.tables import MetricChunk, MetricPoint

MAX_CHUNKS = 32
Place = tuple[int, int]
"""Attempt and seq of an event."""


class Replayed(NamedTuple):
    """Points by key, and the event that they go up to; some of it is never left out."""

    points: Sequence[tuple[str, Point]]
    up_to: Place
    has_more: bool


def replay(session: Session, run_id: str, behind: Place, newest: Place, *, limit: int) -> Replayed | None:
    """Points behind one event, as far as the newest or until there are about `limit`. None when so many of them are
    sealed that loading the series anew is less work.
    """
    hot, up_to = _hot(session, run_id, behind, newest, limit)
    sealed = _sealed(session, run_id, behind, up_to)
    if sealed is None or len(sealed) > limit:
        return None
    in_order = sorted(hot + sealed, key=lambda found: (found[1].attempt, found[1].seq))
    return Replayed(in_order, up_to, has_more=up_to != newest)


def _hot(
    session: Session, run_id: str, behind: Place, newest: Place, limit: int
) -> tuple[list[tuple[str, Point]], Place]:
    place = tuple_(col(MetricPoint.attempt), col(MetricPoint.seq))
    of_run = select(MetricPoint).where(MetricPoint.run_id == run_id)
    within = of_run.where(place > behind, place <= newest)
    rows = list(session.exec(within.order_by(col(MetricPoint.attempt), col(MetricPoint.seq)).limit(limit)))
    up_to = newest
    if len(rows) == limit:
        cut = (rows[-1].attempt, rows[-1].seq)
        whole = [row for row in rows if (row.attempt, row.seq) != cut]
        rows = whole or list(session.exec(of_run.where(MetricPoint.attempt == cut[0], MetricPoint.seq == cut[1])))
        up_to = (rows[-1].attempt, rows[-1].seq)
    return [
        (row.key, Point(row.step, row.attempt, row.seq, row.ts, number(row.value, row.kind))) for row in rows
    ], up_to


def _sealed(session: Session, run_id: str, behind: Place, up_to: Place) -> list[tuple[str, Point]] | None:
    is_later = tuple_(col(MetricChunk.attempt), col(MetricChunk.last_seq)) > behind
    is_known = tuple_(col(MetricChunk.attempt), col(MetricChunk.first_seq)) <= up_to
    mine = (MetricChunk.run_id == run_id, MetricChunk.level == 0, is_later, is_known)
    if len(session.exec(select(MetricChunk.key).where(*mine).limit(MAX_CHUNKS + 1)).all()) > MAX_CHUNKS:
        return None
    rows = session.exec(select(MetricChunk.key, MetricChunk.attempt, MetricChunk.data).where(*mine))
    points = [(key, point) for key, attempt, data in rows for point in unpack_points(data, attempt)]
    return [(key, point) for key, point in points if behind < (point.attempt, point.seq) <= up_to]
