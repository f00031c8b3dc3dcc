"""GroupMax, against the maximum over an unflattened view, which is sparsify's way."""

from collections.abc import Iterator
from functools import partial

from torch import Tensor

from benchmarks.kernels.case import Case, Inputs
from sparsify_core.kernels.groupmax import select_groupmax


def cases(inputs: Inputs) -> Iterator[Case]:
    k = inputs.shape.k
    if inputs.shape.num_latents % k == 0:
        yield Case(
            "select",
            [partial(select_groupmax, pre_NM, k) for pre_NM in inputs.pre_NM],
            "relu, max",
            [partial(_group_maxima, pre_NM, k) for pre_NM in inputs.pre_NM],
            moved_bytes=2 * inputs.pre_NM[0].numel(),
        )


def _group_maxima(pre_NM: Tensor, k: int) -> tuple[Tensor, Tensor]:
    values, places = pre_NM.relu().unflatten(-1, (k, -1)).max(dim=-1)
    return values, places
