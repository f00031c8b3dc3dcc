"""What a causal language model predicts with one coder's reconstruction in the place of a hookpoint's output.

Excluded positions keep the model's own output, under ablation too. With CE the mean cross-entropy over the B * (L - 1)
next tokens and KL the mean of KL(clean || spliced) over all B * L positions, both in nats, sums in float64:

| metric | formula |
|---|---|
| eval_delta_ce | CE(coder) - CE(clean) |
| eval_ce_recovered | (CE(zeros) - CE(coder)) / (CE(zeros) - CE(clean)) |
| eval_kl | KL(coder) |
| eval_kl_score | (KL(zeros) - KL(coder)) / KL(zeros) |

and `..._mean` with the mean of the counted held-out outputs in the place of zeros. What belongs to a hookpoint, not to
a coder, is computed once.
"""

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from sparsify_core.capture.splice import Splice
from sparsify_core.evaluation.held_out import Batch, HeldOut
from sparsify_core.evaluation.reconstruction import Coders
from sparsify_core.model.coder import SparseCoder
from sparsify_core.model.token_loss import cross_entropy_sum, kl_sum

_LOGITS = 1 << 29
"""Logits of a batch, 1 GiB in half precision; two batches of them are alive at a time."""

Rows = Callable[[Tensor, Tensor], Tensor]
"""A module's input (N, D) and output (N, E) -> what takes the output's place (N, E)."""


class _Loss(NamedTuple):
    """Means over the predicted tokens, nats."""

    ce: float
    kl: float


class _Hookpoint:
    """What is spliced in at one hookpoint, and the losses that it leads to."""

    def __init__(self, lm: nn.Module, name: str, coders: Mapping[str, SparseCoder], mean_E: Tensor) -> None:
        self._names = tuple(coders)
        needs_inputs = any(coder.is_transcoder for coder in coders.values())
        self._lm = lm
        self._splice = Splice(lm, [name], needs_inputs=needs_inputs)
        reconstructions = [partial(_reconstruct, coder) for coder in coders.values()]
        self._replacements: list[Rows] = [_zeros, partial(_constant, mean_E), *reconstructions]
        # cross-entropy and KL, a row per replacement
        self._sums_R2 = torch.zeros(len(self._replacements), 2, dtype=torch.float64, device=mean_E.device)

    def add(self, batch: Batch, clean_BLV: Tensor) -> None:
        for number, replacement in enumerate(self._replacements):
            with self._splice.replacing(partial(_exchange, batch.kept, replacement)):
                logits_BLV = self._lm(input_ids=batch.ids_BL, use_cache=False).logits
            losses = [cross_entropy_sum(logits_BLV, batch.ids_BL), kl_sum(logits_BLV, clean_BLV)]
            self._sums_R2[number] += torch.stack(losses)

    def values(self, clean_ce: float, held_out: HeldOut) -> dict[str, dict[str, float]]:
        counts = [held_out.num_next_tokens, held_out.tokens.size]
        zero, mean, *own = (
            _Loss(*(total / count for total, count in zip(row, counts, strict=True))) for row in self._sums_R2.tolist()
        )
        return {name: _values(loss, clean_ce, zero, mean) for name, loss in zip(self._names, own, strict=True)}

    def close(self) -> None:
        self._splice.close()


def count_forwards(coders: Coders) -> int:
    """Forwards of the model per batch: the clean one, and at each hookpoint two ablations and the coders."""
    return 1 + sum(2 + len(group) for group in coders.values())


def measure_downstream(
    lm: nn.Module,
    coders: Coders,
    means: Mapping[str, Tensor],
    held_out: HeldOut,
    *,
    batch_size: int,
    should_stop: Callable[[], bool],
    advance: Callable[[int], None],
) -> dict[str, dict[str, float]] | None:
    """Numbers by coder name, NaN where a denominator is 0. The model gets its own hooks, and is rid of them at the end.

    Args:
        lm: with its head; hookpoints are named below its base model.
        means: the mean counted output (E) of each hookpoint.
        batch_size: sequences per forward at most; fewer where their logits would take too much memory.
        should_stop: asked before each hookpoint; when it says yes, the pass is given up and None returned.
        advance: told the number of sequences after each group of forwards, once per forward.
    """
    hookpoints: dict[str, _Hookpoint] = {}
    clean_ce = torch.zeros((), dtype=torch.float64, device=next(iter(means.values())).device)
    size = min(batch_size, max(1, _LOGITS // (held_out.tokens.shape[1] * _vocabulary(lm))))
    try:
        for name, group in coders.items():
            hookpoints[name] = _Hookpoint(lm, name, group, means[name])
        for batch in held_out.batches(size, clean_ce.device):
            clean_BLV = lm(input_ids=batch.ids_BL, use_cache=False).logits
            clean_ce += cross_entropy_sum(clean_BLV, batch.ids_BL)
            advance(len(batch.ids_BL))
            for name, hookpoint in hookpoints.items():
                if should_stop():
                    return None
                hookpoint.add(batch, clean_BLV)
                advance(len(batch.ids_BL) * (2 + len(coders[name])))
    finally:
        for hookpoint in hookpoints.values():
            hookpoint.close()
    mean_ce = float(clean_ce) / held_out.num_next_tokens
    return {
        name: numbers
        for hookpoint in hookpoints.values()
        for name, numbers in hookpoint.values(mean_ce, held_out).items()
    }


def _values(loss: _Loss, clean_ce: float, zero: _Loss, mean: _Loss) -> dict[str, float]:
    return {
        "eval_delta_ce": loss.ce - clean_ce,
        "eval_ce_recovered": _ratio(zero.ce - loss.ce, zero.ce - clean_ce),
        "eval_ce_recovered_mean": _ratio(mean.ce - loss.ce, mean.ce - clean_ce),
        "eval_kl": loss.kl,
        "eval_kl_score": _ratio(zero.kl - loss.kl, zero.kl),
        "eval_kl_score_mean": _ratio(mean.kl - loss.kl, mean.kl),
    }


def _ratio(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator else math.nan


def _exchange(kept: Tensor | None, replacement: Rows, hookpoint: str, x_ND: Tensor, y_NE: Tensor) -> Tensor:
    if kept is None:
        return replacement(x_ND, y_NE)
    return y_NE.index_copy(0, kept, replacement(x_ND[kept], y_NE[kept])) if len(kept) else y_NE


def _zeros(x_ND: Tensor, y_NE: Tensor) -> Tensor:
    return torch.zeros_like(y_NE)


def _constant(row_E: Tensor, x_ND: Tensor, y_NE: Tensor) -> Tensor:
    return row_E.to(y_NE.dtype).expand_as(y_NE)


def _reconstruct(coder: SparseCoder, x_ND: Tensor, y_NE: Tensor) -> Tensor:
    inputs_ND = x_ND if coder.is_transcoder else y_NE
    return coder.reconstruct(inputs_ND, coder.activate(inputs_ND))


def _vocabulary(lm: Any) -> int:
    return int(lm.config.get_text_config().vocab_size)
