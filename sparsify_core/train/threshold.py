"""BatchTopK's two thresholds: a batch's own, so that its chunks select as the whole would, and the one to deploy.

The deployed one is measured, not averaged on the way: schedule-free optimizers train at one point and deploy another,
where an average over training would not fit.
"""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from sparsify_core.capture.forward import ActivationSource
from sparsify_core.model.selection import batch_threshold, largest
from sparsify_core.train.units import Unit


def threshold_of(pre_parts: Iterable[Tensor], num_active: int) -> Tensor:
    """What a pre-activation must reach so that `num_active` of all parts (N_i, M) do."""
    return batch_threshold((largest(pre_NM, num_active) for pre_NM in pre_parts), num_active)


@torch.no_grad()
def calibrate(
    units: Sequence[Unit], input_ids: Tensor, kept: Tensor | None, source: ActivationSource, *, chunks: int
) -> None:
    """Set the threshold of every BatchTopK coder to that of a training batch, with the weights that it has now.

    Args:
        input_ids: (B, L).
        kept: the rows that count; None means all.
        chunks: parts of the batch that are encoded one after the other, to save memory.
    """
    by_hookpoint: dict[str, list[Unit]] = {}
    for unit in units:
        by_hookpoint.setdefault(unit.hookpoint, []).append(unit)

    def measure(hookpoint: str, x_ND: Tensor, y_NE: Tensor) -> None:
        rows_ND = x_ND if kept is None else x_ND[kept]
        for unit in by_hookpoint[hookpoint]:
            coder = unit.coder
            parts = (coder.pre_activations(part_ND) for part_ND in rows_ND.chunk(chunks))
            coder.threshold.copy_(threshold_of(parts, coder.k * len(rows_ND)))

    if by_hookpoint:
        source.run(input_ids, measure, only=by_hookpoint)
