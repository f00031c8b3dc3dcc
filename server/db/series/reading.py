"""Series read from the database: every point, or buckets of 2^n steps when there are more than were asked for."""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

from sqlmodel import Session, select

from server.db.series.buckets import Buckets, Point, join, merged, newest_per_step, of_points, width_for
from server.db.series.loading import NO_ROWS, Chunk, Rows, SeriesId, load_chunks, load_hot
from server.db.series.packing import END, unpack_buckets
from server.db.tables import MetricChunk, MetricPoint


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
    hot, chunks = load_hot(session, run_ids, keys), load_chunks(session, run_ids, keys)
    names = hot.keys() | chunks.keys()
    stored = {name: _Stored(session, *name, hot.get(name, NO_ROWS), chunks.get(name, [])) for name in names}
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
    ends = sorted({chunk.last_step for chunk in load_chunks(session, [run_id], [key])[run_id, key]})
    return list(zip([0, *(end + 1 for end in ends)], [*ends, END], strict=True))


@dataclass
class _Stored:
    """One series as it lies in the database."""

    session: Session
    run_id: str
    key: str
    hot: Rows
    chunks: list[Chunk]
    """Ordered by their first step."""
    _decoded: dict[Chunk, Rows] = field(default_factory=dict)

    def width(self, first: int, last: int, max_points: int) -> int:
        """The smallest width in which steps `first` to `last` have at most `max_points` buckets."""
        whole, parts = self._split(first, last)
        loose = [part.steps for part in self._loose(parts, first, last) if part.steps]
        if sum(map(len, loose)) + sum(chunk.num_points for chunk in whole) <= max_points:
            return 1
        begins = [*(steps[0] for steps in loose), *(chunk.first_step for chunk in whole)]
        ends = [*(steps[-1] for steps in loose), *(chunk.last_step for chunk in whole)]
        return width_for(min(begins), max(ends), max_points)

    def read(self, first: int, last: int, width: int) -> Buckets:
        """Buckets that meet steps `first` to `last`."""
        first, last = first // width * width, last // width * width + width - 1
        whole, parts = self._split(first, last)
        if width == 1:
            return join(self._loose(whole + parts, first, last))
        return merged(join([*self._loose(parts, first, last), *self._levels(whole, width)]), width)

    def _split(self, first: int, last: int) -> tuple[list[Chunk], list[Chunk]]:
        """Chunks that lie within the steps and share theirs with no other point, and those of which parts may count."""
        met = [chunk for chunk in self.chunks if chunk.first_step <= last and chunk.last_step >= first]
        whole = {c for c in met if first <= c.first_step and c.last_step <= last} - self._crowded
        return [chunk for chunk in met if chunk in whole], [chunk for chunk in met if chunk not in whole]

    @cached_property
    def _crowded(self) -> set[Chunk]:
        """Chunks among whose steps lie others, as happens where an attempt repeats a step of the one before."""
        steps = self.hot.steps
        found = {c for c in self.chunks if bisect_left(steps, c.first_step) < bisect_right(steps, c.last_step)}
        widest: Chunk | None = None
        for chunk in self.chunks:
            if widest is not None and chunk.first_step <= widest.last_step:
                found |= {widest, chunk}
            if widest is None or chunk.last_step > widest.last_step:
                widest = chunk
        return found

    def _loose(self, chunks: Sequence[Chunk], first: int, last: int) -> list[Buckets]:
        """The points that count among the hot ones and those of the chunks, in parts."""
        crowded = [chunk for chunk in chunks if chunk in self._crowded]
        alone = [self._decode(chunk).within(first, last).buckets for chunk in chunks if chunk not in self._crowded]
        if not crowded:
            return [*alone, self.hot.within(first, last).buckets]
        among = [rows.within(first, last) for rows in (self.hot, *map(self._decode, crowded))]
        return [*alone, of_points(newest_per_step(point for rows in among for point in map(Point, *rows)))]

    def _decode(self, chunk: Chunk) -> Rows:
        if chunk not in self._decoded:
            place = (MetricChunk.attempt == chunk.attempt, MetricChunk.first_seq == chunk.first_seq)
            data = select(MetricChunk.data).where(*self._mine, MetricChunk.level == 0, *place)
            self._decoded[chunk] = Rows.of_chunk(self.session.exec(data).one(), chunk.attempt)
        return self._decoded[chunk]

    def _levels(self, chunks: list[Chunk], width: int) -> list[Buckets]:
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
            unpack_buckets(data) if level else Rows.of_chunk(data, attempt).buckets
            for attempt, first_seq, level, data in self.session.exec(within)
            if (attempt, first_seq) in wanted
        ]

    @property
    def _mine(self) -> tuple[Any, ...]:
        return MetricChunk.run_id == self.run_id, MetricChunk.key == self.key
