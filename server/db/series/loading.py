"""What the database holds of series: their rows, and where their chunks lie."""

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any, NamedTuple

from sqlmodel import Session, col, select

from server.db.series.buckets import Buckets, of_columns
from server.db.series.packing import unpack_columns
from server.db.series.rows import number
from server.db.tables import MetricChunk, MetricPoint

SeriesId = tuple[str, str]
"""Id of the run, and key."""


class Rows(NamedTuple):
    """Points of one series, ordered by step, one of each: columns of equal length."""

    steps: Sequence[int]
    attempts: Sequence[int]
    seqs: Sequence[int]
    ts: Sequence[float]
    values: Sequence[float]

    @staticmethod
    def of_chunk(data: bytes, attempt: int) -> "Rows":
        steps, seqs, ts, values = unpack_columns(data)
        return Rows(steps, (attempt,) * len(steps), seqs, ts, values)

    def within(self, first: int, last: int) -> "Rows":
        met = slice(bisect_left(self.steps, first), bisect_right(self.steps, last))
        columns: tuple[Sequence[Any], ...] = self
        return Rows(*(column[met] for column in columns))

    def at(self, places: Sequence[int]) -> "Rows":
        columns: tuple[Sequence[Any], ...] = self
        return Rows(*([column[place] for place in places] for column in columns))

    @property
    def buckets(self) -> Buckets:
        return of_columns(self.steps, self.ts, self.values)


NO_ROWS = Rows((), (), (), (), ())


class Chunk(NamedTuple):
    attempt: int
    first_seq: int
    first_step: int
    last_step: int
    num_points: int


def load_hot(session: Session, run_ids: Sequence[str], keys: Sequence[str] | None) -> dict[SeriesId, Rows]:
    """The rows of series, those that count."""
    columns = (MetricPoint.step, MetricPoint.attempt, MetricPoint.seq, MetricPoint.ts, MetricPoint.value)
    statement = _of(MetricPoint, run_ids, keys, *columns, MetricPoint.kind)
    in_order = statement.order_by(*map(col, (MetricPoint.run_id, MetricPoint.key, *columns[:3])))
    found: dict[SeriesId, Rows] = {}
    for name, group in groupby(_fetch(session, in_order), key=itemgetter(0, 1)):
        _, _, steps, attempts, seqs, ts, values, kinds = zip(*group, strict=True)
        numbers = tuple(map(number, values, kinds)) if None in values else values
        found[name] = _newest(Rows(steps, attempts, seqs, ts, numbers))
    return found


def _newest(rows: Rows) -> Rows:
    """Of rows that are ordered, those that are the last of their step."""
    last = {step: place for place, step in enumerate(rows.steps)}
    return rows if len(last) == len(rows.steps) else rows.at(list(last.values()))


def load_chunks(session: Session, run_ids: Sequence[str], keys: Sequence[str] | None) -> dict[SeriesId, list[Chunk]]:
    """The chunks of series, ordered by their first step."""
    columns = (MetricChunk.attempt, MetricChunk.first_seq, MetricChunk.first_step, MetricChunk.last_step)
    statement = _of(MetricChunk, run_ids, keys, *columns, MetricChunk.num_points).where(MetricChunk.level == 0)
    found: dict[SeriesId, list[Chunk]] = defaultdict(list)
    for run_id, key, *place in _fetch(session, statement.order_by(col(MetricChunk.first_step))):
        found[run_id, key].append(Chunk(*place))
    return found


def _fetch(session: Session, statement: Any) -> Sequence[Any]:
    """The driver's own tuples: no page reads more rows than charts do, and wrapping them takes longer than reading."""
    return session.connection().execute(statement).cursor.fetchall()


def _of(
    table: type[MetricPoint | MetricChunk], run_ids: Sequence[str], keys: Sequence[str] | None, *columns: Any
) -> Any:
    """Columns of the rows of these series, behind the series' run and key."""
    statement = select(table.run_id, table.key, *columns).where(col(table.run_id).in_(run_ids))
    return statement if keys is None else statement.where(col(table.key).in_(keys))
