"""The few numbers that runs are compared by."""

import math
from typing import Any

from sparsify_core.metrics import mean_over_coders

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
    means = mean_over_coders(latest)
    return {name: _first(means, metrics) for name, metrics in HEADLINE.items()}


def _first(means: dict[str, float], metrics: tuple[str, ...]) -> float | None:
    return next((means[metric] for metric in metrics if math.isfinite(means.get(metric, math.nan))), None)
