"""How numbers and sizes are written wherever a person reads them: pages, notices, findings, the command line. Pure.

Charts write metrics and sizes alike: web/static/js/charts/numbers.js.
"""

import math
from typing import Any

from sparsify_core.metrics import METRICS

DASH = "\u2013"

FORMS = {"fraction": "percent", "tokens/s": "rate", "tokens": "rate", "bytes": "bytes", "nats/token": "ratio"}
"""Unit of a metric -> how it is written; FVU-like metrics without a unit are ratios, see `metric_form`."""


def number_of(value: Any) -> float | None:
    """A stored value as a float; None when it is missing. Non-finite ones are stored as strings."""
    if value is None or isinstance(value, bool):
        return None
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def metric_form(name: str, unit: str) -> str:
    """`percent`, `rate`, `ratio`, `bytes` or `plain`; the charts' script knows the same five."""
    if "fvu" in name:
        return "ratio"
    return FORMS.get(unit, "plain")


def named_metric(name: str, value: Any) -> str:
    """A value as its metric is written; one that is not in the registry as a plain number."""
    known = METRICS.get(name)
    return metric(value, metric_form(name, known.unit if known else ""))


def metric(value: Any, form: str = "plain") -> str:
    """A metric's value, e.g. `0.1834`, `3.1%`, `12,345`."""
    number = number_of(value)
    if number is None:
        return DASH
    if math.isnan(number):
        return "NaN"
    if math.isinf(number):
        return "\u221e" if number > 0 else "-\u221e"
    if form == "percent":
        return percent(number)
    if form == "rate":
        return count(number)
    if form == "bytes":
        return size(number)
    if number == 0:
        return "0"
    if abs(number) < 1e-3 or abs(number) >= 1e6:
        return f"{number:.2e}"
    if abs(number) >= 1000:
        return count(number)
    return f"{number:.4f}" if form == "ratio" else f"{number:.4g}"


def percent(fraction: float) -> str:
    """`0.5` -> `50.0%`, `0.0312` -> `3.12%`, `0.00004` -> `0.004%`."""
    shown = 100 * fraction
    if shown == 0:
        return "0%"
    if abs(shown) < 0.01:
        return f"{shown:.2g}%"
    return f"{shown:.2f}%" if abs(shown) < 10 else f"{shown:.1f}%"


def aligned(value: float) -> str:
    """Three decimals where they fit, so that columns line up."""
    return f"{value:.3f}" if 0.001 <= abs(value) < 1000 else metric(value)


def milliseconds(value: float) -> str:
    """`1234.5` -> `1,234`, `12.34` -> `12.3`, `0.1234` -> `0.12`."""
    decimals = 0 if value >= 100 else 1 if value >= 10 else 2
    return f"{value:,.{decimals}f}"


def count(value: int | float | None) -> str:
    """`1234567` -> `1,234,567`."""
    return DASH if value is None else f"{value:,.0f}"


def short_count(value: int | float | None) -> str:
    """`1234567` -> `1.2M`."""
    if value is None:
        return DASH
    for size, suffix in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{suffix}"
    return f"{value:g}"


def duration(seconds: float | None) -> str:
    """`3725` -> `1 h 2 min`, `7200` -> `2 h`."""
    if seconds is None or not math.isfinite(seconds):
        return DASH
    whole = max(0, int(seconds))
    parts = [(whole // 86_400, "d"), (whole // 3600 % 24, "h"), (whole // 60 % 60, "min"), (whole % 60, "s")]
    first = next((index for index, (number, _) in enumerate(parts) if number), len(parts))
    return " ".join(f"{number} {unit}" for number, unit in parts[first : first + 2] if number) or "0 s"


def size(num_bytes: float | None) -> str:
    """`2500000` -> `2.5 MB`."""
    if num_bytes is None:
        return DASH
    value = float(num_bytes)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} B" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def quantity(value: float, form: str) -> str:
    """A predicted number, no finer than it can be known: a `size`, a `duration`, a `rate`, or a `number` alone."""
    if form == "size":
        return size(value)
    if form == "duration":
        return rough_duration(value)
    return short_count(float(f"{value:.3g}")) + (" tokens/s" if form == "rate" else "")


def rough_duration(seconds: float) -> str:
    """`211` -> `3.5 min`."""
    for length, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 1.5 * length:
            return f"{seconds / length:.2g} {unit}" if seconds < 100 * length else f"{seconds / length:,.0f} {unit}"
    return f"{seconds:.0f} s"


def plural(number: int, word: str) -> str:
    """`1 latent`, `2 latents`."""
    return f"{number:,} {word}" if number == 1 else f"{number:,} {word}s"
