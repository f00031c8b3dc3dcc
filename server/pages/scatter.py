"""Geometry of a scatter plot with a frontier, which Jinja draws as SVG. It reads without JavaScript."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from server.pages.labels import Box, Label, place_labels
from server.services.pareto import frontier

WIDTH, HEIGHT = 520, 320
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 16, 14, 44
_FRAME = Box(_LEFT, 0, WIDTH, HEIGHT - _BOTTOM)
_WIDE = 8.0
"""From this ratio of the largest to the smallest value on, an axis is logarithmic."""


@dataclass(frozen=True)
class Point:
    """What is plotted: two numbers and where they lead."""

    x: float
    y: float
    label: str
    href: str
    mark: str = ""
    """What stands beside its dot, where there is room; the label begins with it."""


@dataclass(frozen=True)
class Dot:
    """A point in SVG units."""

    x: float
    y: float
    point: Point
    is_best: bool
    label: Label | None
    """Where its mark stands."""


@dataclass(frozen=True)
class Scatter:
    """A drawn plot: dots, the frontier as the points of a polyline, and ticks `(position, text)` of both axes."""

    dots: list[Dot]
    line: str
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    width: int = WIDTH
    height: int = HEIGHT
    left: int = _LEFT
    right: int = WIDTH - _RIGHT
    top: int = _TOP
    base: int = HEIGHT - _BOTTOM

    @property
    def num_unmarked(self) -> int:
        """Dots without room for their marks."""
        return sum(1 for dot in self.dots if dot.point.mark and dot.label is None)


@dataclass(frozen=True)
class _Axis:
    """Maps values to SVG units, `start` to `end`."""

    low: float
    high: float
    start: float
    end: float
    is_log: bool

    def at(self, value: float) -> float:
        low, high, position = (
            (math.log(self.low), math.log(self.high), math.log(value)) if self.is_log else (self.low, self.high, value)
        )
        return self.start + (position - low) / (high - low) * (self.end - self.start)

    def ticks(self) -> list[tuple[float, str]]:
        return [(self.at(value), f"{value:.6g}") for value in _round_values(self.low, self.high, is_log=self.is_log)]


def scatter(points: Sequence[Point]) -> Scatter | None:
    """A plot of `points` with those on the frontier joined; None without points. All numbers are finite."""
    if not points:
        return None
    x_axis = _axis([point.x for point in points], _LEFT, WIDTH - _RIGHT)
    y_axis = _axis([point.y for point in points], HEIGHT - _BOTTOM, _TOP)
    best = frontier([(point.x, point.y) for point in points])
    places = [(x_axis.at(point.x), y_axis.at(point.y)) for point in points]
    labels = place_labels(places, [point.mark for point in points], _FRAME, first=best)
    dots = [
        Dot(x, y, point, number in best, label)
        for number, ((x, y), point, label) in enumerate(zip(places, points, labels, strict=True))
    ]
    line = " ".join(f"{dots[number].x:.1f},{dots[number].y:.1f}" for number in best)
    return Scatter(sorted(dots, key=lambda dot: dot.is_best), line, x_axis.ticks(), y_axis.ticks())


def _axis(values: list[float], start: float, end: float) -> _Axis:
    low, high = min(values), max(values)
    is_log = low > 0 and high / low >= _WIDE
    if is_log:
        return _Axis(low / 1.15, high * 1.15, start, end, is_log)
    margin = 0.06 * (high - low) or 0.1 * abs(high) or 1.0
    return _Axis(low - margin, high + margin, start, end, is_log)


def _round_values(low: float, high: float, *, is_log: bool) -> list[float]:
    """1, 2 and 5 times powers of ten between the bounds; evenly spaced on a linear axis, where there are 3 to 7."""
    if is_log:
        decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        digits = (1,) if high / low > 1000 else (1, 2, 5)
        return [d * 10.0**n for n in decades for d in digits if low <= d * 10.0**n <= high]
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = power * next(digit for digit in (1, 2, 5, 10) if digit * power >= rough)
    return [n * step for n in range(math.ceil(low / step), math.floor(high / step) + 1)]
