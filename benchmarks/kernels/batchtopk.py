"""BatchTopK with the maxima given, against torch.topk on the flattened batch."""

from collections.abc import Iterator
from functools import partial

import torch

from benchmarks.kernels.case import Case, Inputs
from sparsify_core.kernels.batchtopk import select_batchtopk
from sparsify_core.kernels.dispatch import GROUP


def cases(inputs: Inputs) -> Iterator[Case]:
    k = inputs.shape.k
    number = inputs.shape.num_tokens * k
    yield Case(
        "select",
        [partial(select_batchtopk, *pair, k) for pair in zip(inputs.pre_NM, inputs.max_NJ, strict=True)],
        "torch.topk",
        [partial(torch.topk, pre_NM.flatten(), number, sorted=False) for pre_NM in inputs.pre_NM],
        moved_bytes=2 * inputs.max_NJ[0].numel() + number * (2 * GROUP + 10),
    )
