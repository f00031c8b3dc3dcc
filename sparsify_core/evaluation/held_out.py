"""FVU, L0 and silent latents on held-out tokens, with what is needed to know what was measured.

FVU = sum_t |y_t - out_t|^2 / sum_t |y_t - mean|^2 with the mean over all counted held-out tokens, in float64
(metric formula fvu.dataset.v1).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sparsify_core.capture.forward import ActivationTap
from sparsify_core.data.exclude import kept_positions
from sparsify_core.data.sequences import token_sha256
from sparsify_core.inspect.collect import LatentStats
from sparsify_core.metrics import METRICS
from sparsify_core.model.coder import SparseCoder
from sparsify_core.model.losses import Moments

_METRICS = ("eval_fvu", "eval_l0", "eval_dead_frac")


@dataclass(frozen=True)
class HeldOut:
    """The held-out tokens (n, L) and what is left out of them."""

    tokens: npt.NDArray[np.int64]
    exclude_tokens: Sequence[int]
    exclude_first: int

    @property
    def sha256(self) -> str:
        return token_sha256(self.tokens)


@dataclass(frozen=True)
class Evaluation:
    """Numbers by coder name, the latents' statistics by coder name, and the count of tokens measured."""

    values: dict[str, dict[str, float]]
    latents: dict[str, LatentStats]
    num_tokens: int

    def to_json(self, held_out: HeldOut) -> dict[str, Any]:
        """The content of eval.json."""
        return {
            "formulas": {name: METRICS[name].formula for name in _METRICS},
            "tokens": self.num_tokens,
            "token_sha256": held_out.sha256,
            "exclusions": {"tokens": list(held_out.exclude_tokens), "first": held_out.exclude_first},
            "coders": self.values,
        }


class _Sums:
    """Running sums of one coder."""

    def __init__(self, coder: SparseCoder, tokens_per_sequence: int) -> None:
        device = coder.b_dec.device
        self.moments = Moments(coder.b_dec.detach().double())
        self.error = torch.zeros((), dtype=torch.float64, device=device)
        self.latents = LatentStats(coder.num_latents, tokens_per_sequence=tokens_per_sequence, device=device)

    def add(self, coder: SparseCoder, x_ND: Tensor, y_NE: Tensor, positions_N: Tensor) -> None:
        latents = coder.encode(x_ND)
        out_NE = coder.reconstruct(x_ND, latents)
        self.moments.add(y_NE)
        self.error += (y_NE.double() - out_NE.double()).square().sum()
        self.latents.add(latents.acts_NK, latents.indices_NK, positions_N)

    def values(self) -> dict[str, float]:
        firing = self.latents.firing_count_M
        return {
            "eval_fvu": float(self.error / self.moments.variance_sum()),
            "eval_l0": float(firing.sum() / self.moments.count),
            "eval_dead_frac": float((firing == 0).double().mean()),
        }


def evaluate(
    tap: ActivationTap,
    coders: Mapping[str, Mapping[str, SparseCoder]],
    held_out: HeldOut,
    *,
    batch_size: int,
    should_stop: Callable[[], bool],
) -> Evaluation | None:
    """Run the coders over the held-out tokens once.

    Args:
        coders: hookpoint -> coder name -> coder; the tap's other hookpoints are left alone.
        batch_size: sequences per forward.
        should_stop: asked between batches; when it says yes, the evaluation is given up and None returned.

    Returns:
        None also when every held-out token is excluded.
    """
    length = held_out.tokens.shape[1]
    sums = {name: _Sums(coder, length) for group in coders.values() for name, coder in group.items()}
    device = next(iter(sums.values())).error.device
    num_tokens = 0
    for start in range(0, len(held_out.tokens), batch_size):
        if should_stop():
            return None
        ids = held_out.tokens[start : start + batch_size]
        kept = kept_positions(ids, exclude_tokens=held_out.exclude_tokens, exclude_first=held_out.exclude_first)
        positions = np.arange(ids.size) if kept is None else kept
        if not len(positions):
            continue
        rows = torch.from_numpy(positions).to(device)

        def measure(hookpoint: str, x_ND: Tensor, y_NE: Tensor, rows: Tensor = rows, start: int = start) -> None:
            for name, coder in coders[hookpoint].items():
                sums[name].add(coder, x_ND[rows], y_NE[rows], rows + start * length)

        tap.run(torch.from_numpy(ids).to(device), measure, only=coders.keys())
        num_tokens += len(positions)
    if num_tokens == 0:
        return None
    values = {name: coder_sums.values() for name, coder_sums in sums.items()}
    return Evaluation(values, {name: coder_sums.latents for name, coder_sums in sums.items()}, num_tokens)
