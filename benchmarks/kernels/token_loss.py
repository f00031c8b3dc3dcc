"""Losses of predictions with their gradients, of a chunk of logits as a step has many, against PyTorch."""

from collections.abc import Iterator
from functools import partial

import torch

from benchmarks.kernels.case import Case, Inputs
from sparsify_core.kernels import reference, token_loss

_VOCABULARY = 49_152
_CHUNK_LOGITS = 1 << 26


def cases(inputs: Inputs) -> Iterator[Case]:
    tokens = min(inputs.shape.num_tokens, _CHUNK_LOGITS // _VOCABULARY)
    first, second = (inputs.normal(tokens, _VOCABULARY, dtype=torch.bfloat16) for _ in range(2))
    targets_N = torch.arange(tokens, device=inputs.device)
    yield Case(
        "cross-entropy",
        [partial(token_loss.cross_entropy, logits_NV, targets_N) for logits_NV in (first, second)],
        "log_softmax, gather",
        [partial(reference.cross_entropy, logits_NV, targets_N) for logits_NV in (first, second)],
        moved_bytes=2 * 2 * first.numel(),
    )
    yield Case(
        "KL divergence",
        [partial(token_loss.kl_divergence, *pair) for pair in ((first, second), (second, first))],
        "log_softmax, kl_div",
        [partial(reference.kl_divergence, *pair) for pair in ((first, second), (second, first))],
        moved_bytes=3 * 2 * first.numel(),
    )
