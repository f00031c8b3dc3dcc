"""The few numbers that runs are compared by."""

import math
from typing import Any

from sparsify_core.metrics import split_key

HEADLINE = {
    "l0": ("eval_l0", "l0"),
    "fvu": ("eval_fvu", "fvu"),
    "delta_ce": ("eval_delta_ce",),
    "dead_frac": ("eval_dead_frac", "dead_frac"),
}
"""Number -> metrics that it is taken from: on the held-out tokens, or else on the batch that was trained on."""


def headline(latest: dict[str, Any]) -> dict[str, float | None]:
    """The newest value of each of `HEADLINE`, averaged over the coders; None where there is none or one is not finite.

    Args:
        latest: `Run.latest`.
    """
    return {name: _first([_mean(latest, metric) for metric in metrics]) for name, metrics in HEADLINE.items()}


def _first(values: list[float | None]) -> float | None:
    return next((value for value in values if value is not None), None)


def _mean(latest: dict[str, Any], metric: str) -> float | None:
    values = [float(value) for key, value in latest.items() if split_key(key)[0] == metric]
    mean = sum(values) / len(values) if values else math.nan
    return mean if math.isfinite(mean) else None
