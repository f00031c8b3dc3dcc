"""What an evaluation found, and eval.json, which keeps it with what is needed to know what was measured."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from sparsify_core.evaluation.held_out import HeldOut
from sparsify_core.inspect.collect import LatentStats
from sparsify_core.metrics import METRICS

_LOG10_EDGES = np.arange(-6, 0.5, 0.5)


@dataclass(frozen=True)
class Evaluation:
    """`values`: coder name -> metric (sparsify_core.metrics) -> finite number; one with a denominator of 0 is missing.
    `density`: coder name -> histogram of its latents' firing rates, see `density`. `latents`: what they do, by coder
    name. `num_tokens`: tokens that counted.
    """

    values: dict[str, dict[str, float]]
    density: dict[str, dict[str, Any]]
    latents: dict[str, LatentStats]
    num_tokens: int
    held_out: HeldOut

    @property
    def measured(self) -> list[str]:
        """Names of the metrics that at least one coder has, in the registry's order."""
        found = {name for numbers in self.values.values() for name in numbers}
        return [name for name in METRICS if name in found]

    def to_json(self) -> dict[str, Any]:
        """The content of eval.json."""
        measured = self.measured
        held_out = self.held_out
        content: dict[str, Any] = {
            "formulas": {name: METRICS[name].formula for name in measured},
            "tokens": self.num_tokens,
            "token_sha256": held_out.sha256,
            "exclusions": {"tokens": list(held_out.exclude_tokens), "first": held_out.exclude_first},
        }
        if any(METRICS[name].downstream for name in measured):
            content["predicted_tokens"] = {"ce": held_out.num_next_tokens, "kl": held_out.tokens.size}
        return content | {"coders": self.values, "density": self.density}


def finite(values: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in values.items() if math.isfinite(value)}


def density(firing_count_M: Tensor, num_tokens: int) -> dict[str, Any]:
    """Histogram of log10(firing rate): `counts` of latents between `log10_edges` (half open, the last closed), and how
    many `never` fire. Rates below the first edge are counted in the first bin.
    """
    counts = firing_count_M.cpu().numpy()
    log10_rates = np.log10(counts[counts > 0] / num_tokens).clip(_LOG10_EDGES[0], _LOG10_EDGES[-1])
    return {
        "log10_edges": _LOG10_EDGES.tolist(),
        "counts": np.histogram(log10_rates, _LOG10_EDGES)[0].tolist(),
        "never": int((counts == 0).sum()),
    }
