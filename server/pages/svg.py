"""Geometry of the small charts that Jinja draws as SVG: sparklines and histograms. They read without JavaScript."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from server.numbers import count, metric, percent, plural


@dataclass(frozen=True)
class Bar:
    """One histogram bar, in SVG units, with what it stands for."""

    x: float
    y: float
    width: float
    height: float
    count: int
    label: str
    is_special: bool = False


@dataclass(frozen=True)
class Histogram:
    """A drawn histogram: bars, axis ticks `(x, text)` and gridlines `(y, text)`."""

    width: int
    height: int
    base: float
    left: float
    bars: list[Bar]
    ticks: list[tuple[float, str]]
    lines: list[tuple[float, str]]
    summary: str
    mark: float | None = None


def sparkline(values: Sequence[float | None], width: int = 88, height: int = 22) -> str:
    """`points` of an SVG polyline over the finite values; empty when there are fewer than two."""
    finite = [v for v in values if v is not None and math.isfinite(v)]
    if len(finite) < 2:
        return ""
    positive = min(finite) > 0
    scaled = [math.log(v) if positive else v for v in finite]
    low, high = min(scaled), max(scaled)
    span = (high - low) or 1.0
    step = width / (len(scaled) - 1)
    return " ".join(f"{i * step:.1f},{1 + (height - 2) * (1 - (v - low) / span):.1f}" for i, v in enumerate(scaled))


def density_histogram(firing_frac: Sequence[float], mark: float | None = None) -> Histogram:
    """Histogram of log10 of the firing fraction, with the latents that never fired as a bar of their own."""
    fired = [math.log10(v) for v in firing_frac if v > 0]
    never = len(firing_frac) - len(fired)
    low = min(math.floor(min(fired)), -1) if fired else -4
    edges = _edges(low, 0, 40)
    ticks = [(float(e), f"{10.0 ** (e + 2):g}%") for e in range(low, 1)]
    summary = f"{plural(len(firing_frac), 'latent')}: {count(never)} never fired"
    if fired:
        summary += f", the others fire on {percent(10 ** _median(fired))} of tokens in the median"
    position = math.log10(mark) if mark else None
    return _draw(fired, edges, ticks, summary, unit="of tokens", log=True, special=("never", never), mark=position)


def linear_histogram(values: Sequence[float], mark: float | None = None) -> Histogram:
    """Histogram of values on a linear axis."""
    finite = [v for v in values if math.isfinite(v)]
    low, high = (min(finite), max(finite)) if finite else (0.0, 1.0)
    if high - low < 1e-3 * max(abs(high), 1e-12):
        middle = (low + high) / 2
        low, high = middle - 0.05 * max(abs(middle), 1.0), middle + 0.05 * max(abs(middle), 1.0)
    decimals = max(0, 2 - math.floor(math.log10(high - low)))
    ticks = [(low + (high - low) * i / 4, f"{low + (high - low) * i / 4:.{decimals}f}") for i in range(5)]
    summary = plural(len(finite), "value")
    if finite:
        summary += f" from {metric(min(finite))} to {metric(max(finite))}, median {metric(_median(finite))}"
    return _draw(finite, _edges(low, high, 40), ticks, summary, mark=mark)


def _draw(
    values: Sequence[float],
    edges: list[float],
    ticks: list[tuple[float, str]],
    summary: str,
    *,
    unit: str = "",
    log: bool = False,
    special: tuple[str, int] | None = None,
    mark: float | None = None,
) -> Histogram:
    width, height, left, top, base = 560, 190, 46.0, 10.0, 162.0
    plot_left = left + (58.0 if special else 0.0)
    span = width - plot_left - 8
    counts = _count(values, edges)
    tallest = max([*counts, special[1] if special else 0, 1])
    scale = (base - top) / tallest

    def at(value: float) -> float:
        return plot_left + span * (value - edges[0]) / (edges[-1] - edges[0])

    bars = []
    for index, number in enumerate(counts):
        x = at(edges[index])
        low, high = edges[index], edges[index + 1]
        label = f"{percent(10**low)} to {percent(10**high)} {unit}" if log else f"{metric(low)} to {metric(high)}"
        bars.append(Bar(x + 0.5, base - number * scale, span / len(counts) - 1, number * scale, number, label))
    if special:
        bars.append(Bar(left + 6, base - special[1] * scale, 24, special[1] * scale, special[1], special[0], True))
    lines = [(base - tallest * part * scale, count(tallest * part)) for part in (0.5, 1.0)]
    drawn_ticks = [(at(value), text) for value, text in ticks]
    inside = mark is not None and edges[0] <= mark <= edges[-1]
    return Histogram(
        width, height, base, left, bars, drawn_ticks, lines, summary, at(mark) if inside and mark is not None else None
    )


def _edges(low: float, high: float, bins: int) -> list[float]:
    return [low + (high - low) * i / bins for i in range(bins + 1)]


def _count(values: Sequence[float], edges: list[float]) -> list[int]:
    bins = len(edges) - 1
    counts = [0] * bins
    for value in values:
        position = int((value - edges[0]) / (edges[-1] - edges[0]) * bins)
        counts[min(max(position, 0), bins - 1)] += 1
    return counts


def _median(values: Sequence[float]) -> float:
    ordered = sorted(values)
    return ordered[len(ordered) // 2]
