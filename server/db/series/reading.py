"""Series read from the database: every point, or buckets of 2^n steps when there are more than were asked for."""

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from operator import itemgetter
from typing import Any, NamedTuple

from sqlmodel import Session, col, select

from server.db.series.buckets import Buckets, Point, join, merged, newest_per_step, of_columns, of_points, width_for
from server.db.series.packing import END, unpack_buckets, unpack_points
from server.db.series.rows import number
from server.db.tables import MetricChunk, MetricPoint

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
    hot, chunks = _hot(session, run_ids, keys), _chunks(session, run_ids, keys)
    names = hot.keys() | chunks.keys()
    stored = {name: _Stored(session, *name, hot.get(name, _NOTHING), chunks.get(name, [])) for name in names}
    first, last = start or 0, END if end is None else end
    widths = {name: series.width(first, last, max_points) for name, series in stored.items()}
    if share_width:
        widths = dict.fromkeys(widths, max(widths.values(), default=1))
    thinned = {name: Thinned(widths[name], series.read(first, last, widths[name])) for name, series in stored.items()}
    return {name: one for name, one in thinned.items() if one.buckets.steps}


def keys_of(session: Session, run_id: str) -> list[str]:
    """Keys of all series of a run, sorted."""
    hot = select(MetricPoint.key).where(MetricPoint.run_id == run_id).distinct()
    sealed = select(MetricChunk.key).where(MetricChunk.run_id == run_id).distinct()
    return sorted({*session.exec(hot), *session.exec(sealed)})


def spans(session: Session, run_id: str, key: str) -> list[tuple[int, int]]:
    """First and last steps of stretches that make up a series, each of about a chunk's points."""
    ends = sorted({chunk.last_step for chunk in _chunks(session, [run_id], [key])[run_id, key]})
    return list(zip([0, *(end + 1 for end in ends)], [*ends, END], strict=True))


class _Hot(NamedTuple):
    """The rows of one series, ordered by step, of each step the one that counts: columns of equal length."""

    steps: Sequence[int]
    attempts: Sequence[int]
    seqs: Sequence[int]
    ts: Sequence[float]
    values: Sequence[float]

    def within(self, first: int, last: int) -> "_Hot":
        return self.at(range(bisect_left(self.steps, first), bisect_right(self.steps, last)))

    def at(self, places: Sequence[int]) -> "_Hot":
        columns: tuple[Sequence[Any], ...] = self
        return _Hot(*([column[place] for place in places] for column in columns))


_NOTHING = _Hot((), (), (), (), ())


class _Chunk(NamedTuple):
    attempt: int
    first_seq: int
    first_step: int
    last_step: int
    num_points: int


@dataclass
class _Stored:
    """One series as it lies in the database."""

    session: Session
    run_id: str
    key: str
    hot: _Hot
    chunks: list[_Chunk]
    """Ordered by their first step."""

    def width(self, first: int, last: int, max_points: int) -> int:
        """The smallest width in which steps `first` to `last` have at most `max_points` buckets."""
        whole, parts = self._split(first, last)
        loose = self._loose(parts, first, last).steps
        if len(loose) + sum(chunk.num_points for chunk in whole) <= max_points:
            return 1
        begins = [*loose[:1], *(chunk.first_step for chunk in whole)]
        ends = [*loose[-1:], *(chunk.last_step for chunk in whole)]
        return width_for(min(begins), max(ends), max_points)

    def read(self, first: int, last: int, width: int) -> Buckets:
        """Buckets that meet steps `first` to `last`."""
        first, last = first // width * width, last // width * width + width - 1
        whole, parts = self._split(first, last)
        if width == 1:
            return self._loose(whole + parts, first, last)
        return merged(join([self._loose(parts, first, last), *self._levels(whole, width)]), width)

    def _split(self, first: int, last: int) -> tuple[list[_Chunk], list[_Chunk]]:
        """Chunks that lie within the steps and share theirs with no other point, and those of which parts may count."""
        met = [chunk for chunk in self.chunks if chunk.first_step <= last and chunk.last_step >= first]
        whole = {c for c in met if first <= c.first_step and c.last_step <= last} - self._crowded
        return [chunk for chunk in met if chunk in whole], [chunk for chunk in met if chunk not in whole]

    @cached_property
    def _crowded(self) -> set[_Chunk]:
        """Chunks among whose steps lie others, as happens where an attempt repeats a step of the one before."""
        steps = self.hot.steps
        found = {c for c in self.chunks if bisect_left(steps, c.first_step) < bisect_right(steps, c.last_step)}
        widest: _Chunk | None = None
        for chunk in self.chunks:
            if widest is not None and chunk.first_step <= widest.last_step:
                found |= {widest, chunk}
            if widest is None or chunk.last_step > widest.last_step:
                widest = chunk
        return found

    def _loose(self, chunks: Sequence[_Chunk], first: int, last: int) -> Buckets:
        """The points that count among the hot ones and those of the chunks."""
        hot = self.hot.within(first, last)
        if not chunks:
            return of_columns(hot.steps, hot.ts, hot.values)
        found = list(map(Point, *hot))
        for chunk in chunks:
            place = (MetricChunk.attempt == chunk.attempt, MetricChunk.first_seq == chunk.first_seq)
            data = select(MetricChunk.data).where(*self._mine, MetricChunk.level == 0, *place)
            found += unpack_points(self.session.exec(data).one(), chunk.attempt, first, last)
        return of_points(newest_per_step(found))

    def _levels(self, chunks: list[_Chunk], width: int) -> list[Buckets]:
        """What chunks have for buckets of `width` steps, each at its coarsest level that is fine enough."""
        if not chunks:
            return []
        level = width.bit_length() - 1
        columns = (MetricChunk.attempt, MetricChunk.first_seq, MetricChunk.level, MetricChunk.data)
        fitting = select(*columns).where(*self._mine, MetricChunk.level <= level, MetricChunk.below > level)
        first, last = chunks[0].first_step, chunks[-1].last_step
        within = fitting.where(MetricChunk.first_step >= first, MetricChunk.last_step <= last)
        wanted = {(chunk.attempt, chunk.first_seq) for chunk in chunks}
        return [
            unpack_buckets(data) if level else of_points(unpack_points(data, attempt))
            for attempt, first_seq, level, data in self.session.exec(within)
            if (attempt, first_seq) in wanted
        ]

    @property
    def _mine(self) -> tuple[Any, ...]:
        return MetricChunk.run_id == self.run_id, MetricChunk.key == self.key


def _hot(session: Session, run_ids: Sequence[str], keys: Sequence[str] | None) -> dict[SeriesId, _Hot]:
    columns = (MetricPoint.step, MetricPoint.attempt, MetricPoint.seq, MetricPoint.ts, MetricPoint.value)
    statement = _of(MetricPoint, run_ids, keys, *columns, MetricPoint.kind)
    in_order = statement.order_by(*map(col, (MetricPoint.run_id, MetricPoint.key, *columns[:3])))
    found: dict[SeriesId, _Hot] = {}
    for name, group in groupby(_fetch(session, in_order), key=itemgetter(0, 1)):
        _, _, steps, attempts, seqs, ts, values, kinds = zip(*group, strict=True)
        numbers = tuple(map(number, values, kinds)) if None in values else values
        found[name] = _newest(_Hot(steps, attempts, seqs, ts, numbers))
    return found


def _newest(rows: _Hot) -> _Hot:
    """Of rows that are ordered, those that are the last of their step."""
    last = {step: place for place, step in enumerate(rows.steps)}
    return rows if len(last) == len(rows.steps) else rows.at(list(last.values()))


def _chunks(session: Session, run_ids: Sequence[str], keys: Sequence[str] | None) -> dict[SeriesId, list[_Chunk]]:
    """The chunks of series, ordered by their first step."""
    columns = (MetricChunk.attempt, MetricChunk.first_seq, MetricChunk.first_step, MetricChunk.last_step)
    statement = _of(MetricChunk, run_ids, keys, *columns, MetricChunk.num_points).where(MetricChunk.level == 0)
    found: dict[SeriesId, list[_Chunk]] = defaultdict(list)
    for run_id, key, *place in _fetch(session, statement.order_by(col(MetricChunk.first_step))):
        found[run_id, key].append(_Chunk(*place))
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
