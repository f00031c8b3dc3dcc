"""What past runs teach: how far predictions were off, and how far the next one may be."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

PRIOR = 0.5
"""Standard deviation of the logarithm of actual over predicted before any run was seen, on a device whose rates are
known: between 0.53 and 1.9 times the prediction for eight of ten runs."""
PRIOR_UNKNOWN = 1.1
"""The same on a device of unknown rates: between 0.24 and 4.1 times."""
_EIGHT_OF_TEN = 1.28
_TO_DEVIATION = 1.4826
"""From the median absolute deviation to a standard deviation."""


@dataclass(frozen=True)
class Range:
    """A number, and between what it will lie in eight of ten runs."""

    expected: float
    low: float
    high: float


@dataclass(frozen=True)
class Correction:
    """What to multiply a prediction by. `num_runs` have taught it."""

    factor: float
    deviation: float
    num_runs: int

    def apply(self, predicted: float) -> Range:
        spread = math.exp(_EIGHT_OF_TEN * self.deviation)
        expected = predicted * self.factor
        return Range(expected, expected / spread, expected * spread)


def learn(ratios: Sequence[float], *, prior: float) -> Correction:
    """From the ratios of actual to predicted of past runs.

    The median, so that one odd run counts for one; its spread is mixed with what was assumed before, which counts as
    much as one run.
    """
    logs = [math.log(ratio) for ratio in ratios if ratio > 0 and math.isfinite(ratio)]
    if not logs:
        return Correction(1.0, prior, 0)
    middle = statistics.median(logs)
    deviation = _TO_DEVIATION * statistics.median(abs(value - middle) for value in logs)
    mixed = math.sqrt((len(logs) * deviation**2 + prior**2) / (len(logs) + 1))
    return Correction(math.exp(middle), mixed, len(logs))
