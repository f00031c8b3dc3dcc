"""What the rules look at."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from statistics import median
from typing import Any

from sparsify_core.config import RunConfig, iter_fields
from sparsify_core.metrics import split_key

LOST_FVU = 0.95
"""A coder that is no better than answering with the mean."""

WARM_STEPS = 50


@dataclass(frozen=True)
class Line:
    """One series in the order of its steps; `ts` in Unix seconds. Values may be NaN or infinite.

    Of a long one a point is the last of several, and `highest` the largest of them; empty where they are all here.
    """

    steps: Sequence[int]
    values: Sequence[float]
    ts: Sequence[float]
    highest: Sequence[float] = ()

    def part(self, start: float, end: float) -> list[float]:
        """The finite values whose steps lie between two fractions of the way to the newest step."""
        last = self.steps[-1] if self.steps else 0
        pairs = zip(self.steps, self.values, strict=True)
        return [value for step, value in pairs if start * last <= step <= end * last and math.isfinite(value)]


@dataclass(frozen=True)
class Evidence:
    """A run as it is stored.

    Args:
        config: the stored configuration, nested.
        series: by key (`fvu/layers.5`), thinned.
        latest: the newest value of every series, also of those that are not in `series`.
        reason_code: why it failed or was paused; empty otherwise.
        step: of the newest point.
    """

    config: Mapping[str, Any]
    series: Mapping[str, Line] = field(default_factory=dict)
    latest: Mapping[str, float] = field(default_factory=dict)
    reason_code: str = ""
    step: int = 0

    def option(self, name: str) -> Any:
        """A field of the configuration by its dotted name; its default in a configuration from before it was there."""
        node: Any = self.config
        for part in name.split("."):
            node = node.get(part, _defaults()[name]) if isinstance(node, Mapping) else node
        return node

    @property
    def lr(self) -> float | None:
        """The peak learning rate, as far as it is known: that of the configuration, else the largest one seen."""
        given: float | None = self.option("lr")
        seen = [value for value in self.of("lr").get("", Line((), (), ())).values if math.isfinite(value)]
        return given if given is not None else max(seen, default=None)

    def of(self, metric: str) -> dict[str, Line]:
        """The series of a metric, by coder; the coder of a metric of the whole run is empty."""
        return {split_key(key)[1]: line for key, line in self.series.items() if split_key(key)[0] == metric}

    def newest(self, metric: str) -> dict[str, float]:
        """The newest values of a metric, by coder."""
        return {split_key(key)[1]: value for key, value in self.latest.items() if split_key(key)[0] == metric}

    @property
    def is_lost(self) -> bool:
        """Whether a coder explains nothing by now: what is wrong with its latents follows from that."""
        return any(value > LOST_FVU for value in self.newest("fvu").values())

    @property
    def warm_step(self) -> int:
        """From here on a course means something: the first steps compile and fall steeply, a warm-up moves little."""
        return max(WARM_STEPS, 0 if self.option("optimizer") == "signum" else int(self.option("lr_warmup_steps")))

    def has(self, metric: str) -> bool:
        """Whether there is any value of a metric."""
        return any(split_key(key)[0] == metric for key in self.latest)


@cache
def _defaults() -> dict[str, Any]:
    return {spec.name: spec.default for spec in iter_fields(RunConfig)}


def middle(values: Sequence[float]) -> float:
    """The median, which one odd step does not move. Raises StatisticsError for no values."""
    return median(values)


def named(coders: Sequence[str], total: int) -> str:
    """Which coders a finding is about: ` of layers.5`, ` of 3 of 12 coders`; nothing in a run with one."""
    if total == 1:
        return ""
    return f" of {coders[0]}" if len(coders) == 1 else f" of {len(coders)} of {total} coders"
