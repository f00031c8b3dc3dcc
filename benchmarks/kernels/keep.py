"""The k largest of the dead latents kept in place, against torch.topk and a scatter."""

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from benchmarks.kernels.case import NUM_DEAD, Case, Inputs
from sparsify_core.kernels.keep import keep_largest


def cases(inputs: Inputs) -> Iterator[Case]:
    columns = min(NUM_DEAD, inputs.shape.num_latents // 4)
    k = min(inputs.shape.width // 2, columns)
    pre_NC = [inputs.normal(inputs.shape.num_tokens, columns, dtype=torch.bfloat16) for _ in range(2)]
    yield Case(
        f"keep {k} of {columns}",
        [partial(keep_largest, own, k, columns) for own in pre_NC],
        "relu, topk, scatter",
        [partial(_scatter_topk, own, k) for own in pre_NC],
        moved_bytes=2 * 2 * pre_NC[0].numel(),
    )


def _scatter_topk(pre_NC: Tensor, k: int) -> Tensor:
    values, places = pre_NC.relu().topk(k, sorted=False)
    return torch.zeros_like(pre_NC).scatter_(1, places, values)
