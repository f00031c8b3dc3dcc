"""What a run was predicted to need beside what it needed."""

from dataclasses import dataclass

from server.db.tables import Prediction
from server.numbers import quantity

_SHOWN = {
    "tokens_per_s": ("Speed", "rate"),
    "duration_s": ("Duration", "duration"),
    "memory_bytes": ("Memory", "size"),
    "disk_bytes": ("Disk", "size"),
}
_NEAR = 0.02
"""Less off than that is as predicted."""


@dataclass(frozen=True)
class PredictedRow:
    """A line of the table; `actual` and `off` are empty until the run has ended."""

    label: str
    expected: str
    bounds: str
    actual: str
    off: str


def predicted_rows(prediction: Prediction | None) -> list[PredictedRow]:
    """Those numbers that were predicted; none for a run without a prediction."""
    if prediction is None:
        return []
    return [_row(name, prediction) for name in _SHOWN if name in prediction.expected]


def _row(name: str, prediction: Prediction) -> PredictedRow:
    label, form = _SHOWN[name]
    expected, low, high = prediction.expected[name]
    actual = prediction.actual.get(name)
    bounds = f"{quantity(low, 'number' if form == 'rate' else form)} to {quantity(high, form)}" if low < high else ""
    return PredictedRow(
        label,
        quantity(expected, form),
        bounds,
        "" if actual is None else quantity(actual, form),
        "" if actual is None or not expected else _off(actual / expected - 1),
    )


def _off(share: float) -> str:
    return "as predicted" if abs(share) < _NEAR else f"{share:+.0%}".replace("-", "\u2212")
