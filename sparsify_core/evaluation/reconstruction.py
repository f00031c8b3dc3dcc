"""How well coders reconstruct the held-out activations, and what their latents do there.

FVU = sum_t |y_t - out_t|^2 / sum_t |y_t - mean|^2 with the mean over all counted held-out tokens, in float64
(metric formula fvu.dataset.v1); EV = 1 - FVU.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from sparsify_core.capture.forward import ActivationTap
from sparsify_core.evaluation.duplicates import duplicate_frac
from sparsify_core.evaluation.held_out import Batch, HeldOut
from sparsify_core.inspect.collect import LatentStats
from sparsify_core.model.coder import SparseCoder
from sparsify_core.model.losses import Moments

_ROUNDING = 1e-12
"""A variance below this share of the mean square is what float64 subtraction leaves over."""

_DENSE_RATE = 0.1
_DENSE_EXCESS = 10
"""A latent is dense when it fires on more than this share of the tokens, and that many times as often as the mean one:
of a handful of latents all fire often."""

Coders = Mapping[str, Mapping[str, SparseCoder]]
"""Hookpoint -> coder name -> coder, all on one device."""


@dataclass(frozen=True)
class Reconstruction:
    """`values` (not finite where a denominator is 0) and `latents` by coder; `means` are the mean counted outputs (E)
    by hookpoint, float64.
    """

    values: dict[str, dict[str, float]]
    latents: dict[str, LatentStats]
    means: dict[str, Tensor]
    num_tokens: int


class _Targets:
    """Sums over the outputs of one hookpoint."""

    def __init__(self, group: Mapping[str, SparseCoder]) -> None:
        # A trained b_dec is near the mean; the coders of a hookpoint have the same targets.
        self._shift_E = next(iter(group.values())).b_dec.detach().double()
        self.moments = Moments(self._shift_E)

    @property
    def variance_sum(self) -> Tensor:
        """sum_t |y_t - mean|^2, float64; NaN when it is 0, so when all outputs are equal."""
        variance = self.moments.variance_sum()
        return variance.where(variance > _ROUNDING * self.moments.square, torch.nan)

    @property
    def mean(self) -> Tensor:
        """(E) float64."""
        return self._shift_E + self.moments.sum_D / self.moments.count


class _Sums:
    """Sums of one coder."""

    def __init__(self, coder: SparseCoder, tokens_per_sequence: int) -> None:
        device = coder.b_dec.device
        self.error = torch.zeros((), dtype=torch.float64, device=device)
        self.latents = LatentStats(coder.num_latents, tokens_per_sequence=tokens_per_sequence, device=device)

    def add(self, coder: SparseCoder, x_ND: Tensor, y_NE: Tensor, positions_N: Tensor) -> None:
        latents = coder.activate(x_ND)
        out_NE = coder.reconstruct(x_ND, latents)
        self.error += (y_NE.double() - out_NE.double()).square().sum()
        self.latents.add(latents, positions_N)

    def values(self, coder: SparseCoder, targets: _Targets) -> dict[str, float]:
        fvu = float(self.error / targets.variance_sum)
        firing = self.latents.firing_count_M
        return {
            "eval_fvu": fvu,
            "eval_ev": 1 - fvu,
            "eval_l0": float(firing.sum() / targets.moments.count),
            "eval_dead_frac": float((firing == 0).double().mean()),
            "eval_dense_frac": _dense_frac(firing, targets.moments.count),
            "eval_duplicate_frac": duplicate_frac(coder.W_dec),
        }


def _dense_frac(firing_count_M: Tensor, num_tokens: Tensor | int) -> float:
    """Share of all activations that dense latents have; NaN when nothing fires."""
    rates_M = firing_count_M.double() / num_tokens
    is_dense_M = rates_M > max(_DENSE_RATE, _DENSE_EXCESS * float(rates_M.mean()))
    return float(rates_M[is_dense_M].sum() / rates_M.sum())


def measure_reconstruction(
    tap: ActivationTap,
    coders: Coders,
    held_out: HeldOut,
    *,
    batch_size: int,
    should_stop: Callable[[], bool],
    advance: Callable[[int], None],
) -> Reconstruction | None:
    """One pass of the model over the held-out tokens, no further than the deepest hookpoint of `coders`.

    Args:
        tap: gives inputs as well when one of the coders is a transcoder.
        should_stop: asked before each batch; when it says yes, the pass is given up and None returned.
        advance: told the number of sequences after each forward.

    Returns:
        None also when every held-out token is excluded.
    """
    targets = {hookpoint: _Targets(group) for hookpoint, group in coders.items()}
    length = held_out.tokens.shape[1]
    sums = {name: _Sums(coder, length) for group in coders.values() for name, coder in group.items()}
    device = next(iter(sums.values())).error.device
    num_tokens = 0
    for batch in held_out.batches(batch_size, device):
        if should_stop():
            return None
        rows = batch.rows
        if len(rows):

            def add(hookpoint: str, x_ND: Tensor, y_NE: Tensor, batch: Batch = batch, rows: Tensor = rows) -> None:
                if batch.kept is not None:
                    same = x_ND is y_NE
                    y_NE = y_NE[rows]
                    x_ND = y_NE if same else x_ND[rows]
                targets[hookpoint].moments.add(y_NE)
                for name, coder in coders[hookpoint].items():
                    sums[name].add(coder, x_ND if coder.is_transcoder else y_NE, y_NE, rows + batch.first)

            tap.run(batch.ids_BL, add, only=coders.keys())
            num_tokens += len(rows)
        advance(len(batch.ids_BL))
    if num_tokens == 0:
        return None
    values = {
        name: sums[name].values(coder, targets[hookpoint])
        for hookpoint, group in coders.items()
        for name, coder in group.items()
    }
    latents = {name: coder_sums.latents for name, coder_sums in sums.items()}
    return Reconstruction(values, latents, {name: target.mean for name, target in targets.items()}, num_tokens)
