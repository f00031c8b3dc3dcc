"""Points of a series by buckets of 2^n steps, aligned to step 0: points that come later change the last bucket alone,
and buckets of several runs lie on one grid.
"""

import math
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import chain, pairwise
from operator import itemgetter
from typing import NamedTuple


class Point(NamedTuple):
    """One value of one series. Points sort by step, and those of one step by who came last."""

    step: int
    attempt: int
    seq: int
    ts: float
    value: float


class Buckets(NamedTuple):
    """Columns of equal length, ordered by step. A point is a bucket of its own."""

    steps: Sequence[int]
    ts: Sequence[float]
    values: Sequence[float]
    """Step, time and value are those of the bucket's last point."""
    lows: Sequence[float]
    """Smallest finite value; inf where there is none."""
    highs: Sequence[float]
    """Largest finite value; -inf where there is none."""


def as_json(value: float) -> float | str:
    """The value itself, or `nan`, `inf`, `-inf`: JSON has no such numbers."""
    return value if math.isfinite(value) else str(value)


def newest_per_step(points: Iterable[Point]) -> list[Point]:
    """The points that count, ordered by step: of one step that of the latest attempt and event."""
    return list({point.step: point for point in sorted(points)}.values())


def of_points(points: Sequence[Point]) -> Buckets:
    """Every point as a bucket of its own; they must be ordered by step."""
    steps, _, _, ts, values = zip(*points, strict=True) if points else ((), (), (), (), ())
    return of_columns(steps, ts, values)


def of_columns(steps: Sequence[int], ts: Sequence[float], values: Sequence[float]) -> Buckets:
    """As `of_points`, from columns."""
    if all(map(math.isfinite, values)):
        return Buckets(steps, ts, values, values, values)
    lows = [value if math.isfinite(value) else math.inf for value in values]
    highs = [value if math.isfinite(value) else -math.inf for value in values]
    return Buckets(steps, ts, values, lows, highs)


def join(parts: Iterable[Buckets]) -> Buckets:
    """The buckets of all parts, each of which is ordered by step, in that order."""
    found = sorted((part for part in parts if part.steps), key=lambda part: part.steps[0])
    if not found:
        return Buckets((), (), (), (), ())
    if all(one.steps[-1] <= other.steps[0] for one, other in pairwise(found)):
        return Buckets(*(list(chain(*column)) for column in zip(*found, strict=True)))
    rows = sorted((row for part in found for row in zip(*part, strict=True)), key=itemgetter(0))
    return Buckets(*zip(*rows, strict=True))


def merged(fine: Buckets, width: int) -> Buckets:
    """The same in buckets of `width` steps, which is a multiple of the width that `fine` has."""
    if width == 1:
        return fine
    steps, ts, values, lows, highs = fine
    ends, begin = [0], 0
    while begin < len(steps):
        begin = bisect_left(steps, (steps[begin] // width + 1) * width, begin)
        ends.append(begin)
    spans = [slice(begin, end) for begin, end in pairwise(ends)]
    last = [end - 1 for end in ends[1:]]
    return Buckets(
        [steps[i] for i in last],
        [ts[i] for i in last],
        [values[i] for i in last],
        [min(lows[span]) for span in spans],
        [max(highs[span]) for span in spans],
    )


def width_for(first: int, last: int, max_points: int) -> int:
    """The smallest power of two that covers steps `first` to `last` with at most `max_points` buckets."""
    width = 1
    while last // width - first // width >= max_points:
        width *= 2
    return width
