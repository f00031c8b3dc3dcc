"""End-to-end losses: what the spliced reconstructions do to the language model's predictions, as sums over tokens.

Legend: B sequences, L tokens, V vocabulary, N = B * L. Sums, for the reason given in losses.py. Logits stay in the
model's dtype; float32 exists for a few tokens at a time only, in the backward pass too, where it is recomputed.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

_CHUNK_ELEMENTS = 1 << 24
"""Logits converted at a time: 64 MiB in float32."""

_NO_TARGET = -100


def cross_entropy_sum(logits_BLV: Tensor, input_ids_BL: Tensor) -> Tensor:
    """sum over b, l < L-1 of -log q(token l+1 | tokens up to l), q the softmax of the logits; nats.

    Returns:
        A float64 scalar over B * (L - 1) predicted tokens.
    """
    targets_BL = input_ids_BL.roll(-1, 1)
    targets_BL[:, -1] = _NO_TARGET
    return _chunked_sum(_cross_entropy, logits_BLV, targets_BL.flatten())


def kl_sum(logits_BLV: Tensor, clean_BLV: Tensor) -> Tensor:
    """sum over b, l of KL(p || q) = sum_v p_v (log p_v - log q_v), p from the clean logits, q from `logits_BLV`; nats.

    Upstream's "kl" leaves out log p: a cross-entropy, that does not become 0 for a perfect coder.

    Returns:
        A float64 scalar over B * L predicted tokens.
    """
    return _chunked_sum(_kl, logits_BLV, clean_BLV.flatten(0, 1))


def _chunked_sum(loss: Callable[[Tensor, Tensor], Tensor], logits_BLV: Tensor, reference_N: Tensor) -> Tensor:
    """Sum of `loss` over chunks of tokens. Splitting once keeps the backward pass at one concatenation."""
    size = max(_CHUNK_ELEMENTS // logits_BLV.shape[-1], 1)
    parts = zip(torch.split(logits_BLV.flatten(0, 1), size), torch.split(reference_N, size), strict=True)
    sums = [checkpoint(loss, *part, use_reentrant=False, preserve_rng_state=False) for part in parts]
    return torch.stack(sums).sum()


def _cross_entropy(logits_NV: Tensor, targets_N: Tensor) -> Tensor:
    return functional.cross_entropy(_wide(logits_NV), targets_N, ignore_index=_NO_TARGET, reduction="none").sum(
        dtype=torch.float64
    )


def _kl(logits_NV: Tensor, clean_NV: Tensor) -> Tensor:
    log_q, log_p = _wide(logits_NV).log_softmax(-1), _wide(clean_NV).log_softmax(-1)
    return functional.kl_div(log_q, log_p, log_target=True, reduction="none").sum(dtype=torch.float64)


def _wide(logits: Tensor) -> Tensor:
    """At least float32: half precision has too few digits for a sum over a vocabulary."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))
