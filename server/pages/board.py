"""Geometry of the Pareto board: runs by two objectives, with the frontier of those that no other one beats."""

from collections.abc import Sequence
from dataclasses import dataclass

from server.db.tables import Run
from server.pages.formatting import short_count
from server.services.compare import objectives
from server.services.pareto import frontier

AXES = ("L0", "FVU", "Loss increase", "Tokens")
_WIDTH, _HEIGHT, _LEFT, _BASE, _TOP = 640, 320, 62.0, 276.0, 16.0


@dataclass(frozen=True)
class Dot:
    """One run, in SVG units, and its two values."""

    run: Run
    number: int
    x: float
    y: float
    across: float
    up: float
    is_best: bool


@dataclass(frozen=True)
class Board:
    """The drawn board; `path` are the points of the frontier's polyline, ticks are `(place, text)`."""

    width: int
    height: int
    left: float
    base: float
    dots: list[Dot]
    path: str
    ticks: list[tuple[float, str]]
    lines: list[tuple[float, str]]


def draw_board(runs: Sequence[Run], across: str, up: str) -> Board | None:
    """None when no run has both values."""
    points = [(objectives(run)[across], objectives(run)[up]) for run in runs]
    known = [(n, x, y) for n, (x, y) in enumerate(points) if x is not None and y is not None]
    if not known:
        return None
    best = frontier(points)
    low_x, high_x = _span([x for _, x, _ in known])
    low_y, high_y = _span([y for _, _, y in known])

    def at_x(value: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - 20) * (value - low_x) / (high_x - low_x)

    def at_y(value: float) -> float:
        return _BASE - (_BASE - _TOP) * (value - low_y) / (high_y - low_y)

    dots = {n: Dot(runs[n], n + 1, at_x(x), at_y(y), x, y, n in best) for n, x, y in known}
    path = " ".join(f"{dots[n].x:.1f},{dots[n].y:.1f}" for n in best)
    ticks = [(at_x(value), short_count(value)) for value in _ticks(low_x, high_x)]
    lines = [(at_y(value), short_count(value)) for value in _ticks(low_y, high_y)]
    return Board(_WIDTH, _HEIGHT, _LEFT, _BASE, list(dots.values()), path, ticks, lines)


def _span(values: Sequence[float]) -> tuple[float, float]:
    """A little beyond the values."""
    low, high = min(values), max(values)
    pad = (high - low) * 0.08 or abs(high) * 0.1 or 1.0
    return low - pad, high + pad


def _ticks(low: float, high: float) -> list[float]:
    return [float(f"{low + (high - low) * n / 4:.3g}") for n in range(1, 5)]
