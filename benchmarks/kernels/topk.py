"""The k largest of each token with the maxima given, against torch.topk, which is sparsify's way."""

from collections.abc import Iterator
from functools import partial

import torch

from benchmarks.kernels.case import Case, Inputs
from sparsify_core.kernels.dispatch import GROUP
from sparsify_core.kernels.topk import select_topk


def cases(inputs: Inputs) -> Iterator[Case]:
    num_tokens, k = inputs.shape.num_tokens, inputs.shape.k
    yield Case(
        "select",
        [partial(select_topk, *pair, k) for pair in zip(inputs.pre_NM, inputs.max_NJ, strict=True)],
        "torch.topk",
        [partial(torch.topk, pre_NM, k, sorted=False) for pre_NM in inputs.pre_NM],
        moved_bytes=2 * inputs.max_NJ[0].numel() + num_tokens * k * (2 * GROUP + 6),
    )
