"""Initialization that looks at data: biases from the means over the first optimizer step's tokens."""

from collections.abc import Iterable
from functools import partial
from itertools import islice

import torch
from torch import Tensor

from sparsify_core.train.distributed import Group
from sparsify_core.train.step import Batch
from sparsify_core.train.units import Unit


@torch.no_grad()
def initialize_biases(
    units: list[Unit],
    batches: Iterable[Batch],
    group: Group,
    *,
    first_only: bool,
) -> None:
    """b_dec := mean target; for a transcoder also encoder.bias := -W_enc @ mean input, which centres its input.

    The whole first step is looked at, before it is trained on, so the result does not depend on how the step is cut
    into batches and processes.

    Args:
        batches: of this process, of the first step.
        first_only: look at the first batch of each process alone, and average their means, as upstream does.
    """
    sums: dict[str, tuple[Tensor, Tensor, Tensor]] = {}

    def add(hookpoint: str, x_ND: Tensor, y_NE: Tensor, kept: Tensor | None) -> None:
        x_ND, y_NE = (x_ND, y_NE) if kept is None else (x_ND[kept], y_NE[kept])
        takes_mean = first_only and len(y_NE) > 0
        new = (
            x_ND.mean(0).double() if takes_mean else x_ND.sum(0, dtype=torch.float64),
            y_NE.mean(0).double() if takes_mean else y_NE.sum(0, dtype=torch.float64),
            torch.tensor([1 if takes_mean else len(y_NE)], dtype=torch.float64, device=y_NE.device),
        )
        old = sums.get(hookpoint)
        sums[hookpoint] = new if old is None else (old[0] + new[0], old[1] + new[1], old[2] + new[2])

    for input_ids, kept, source in islice(batches, 1 if first_only else None):
        source.run(input_ids, partial(add, kept=kept))
    group.add_up(tensor for hookpoint in sorted(sums) for tensor in sums[hookpoint])
    for unit in units:
        x_sum_D, y_sum_E, count = sums[unit.hookpoint]
        coder = unit.coder
        coder.b_dec.copy_(y_sum_E / count.clamp(min=1))
        if coder.is_transcoder:
            coder.encoder.bias.copy_(-coder.encoder.weight @ (x_sum_D / count.clamp(min=1)).float())
