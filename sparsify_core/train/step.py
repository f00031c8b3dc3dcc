"""What one optimizer step gathers for one coder, over its micro-batches and over all processes."""

import torch
from torch import Tensor

from sparsify_core.config import RunConfig
from sparsify_core.model.losses import Moments, loss_sums
from sparsify_core.train.distributed import Group
from sparsify_core.train.optim import CoderOptimizer, scale_gradients
from sparsify_core.train.units import Unit


class StepSums:
    """Gradients in the coder's `.grad`, sums of everything else here; the ratio is taken at the end of the step."""

    def __init__(self, unit: Unit) -> None:
        coder = unit.coder
        self._unit = unit
        # b_dec is near the mean of the targets, the same on every process and constant within the step.
        self.moments = Moments(coder.b_dec.detach().clone())
        self.error = torch.zeros_like(self.moments.count)
        self.num_active = torch.zeros_like(self.moments.count)
        self.fired_M = torch.zeros(coder.num_latents, dtype=torch.int32, device=coder.b_dec.device)

    def add(self, x_ND: Tensor, y_NE: Tensor) -> None:
        """Forward and backward on one micro-batch."""
        with torch.enable_grad():
            sums = loss_sums(self._unit.coder, x_ND, y_NE)
            sums.loss.backward()  # type: ignore[no-untyped-call]
        self.moments.add(y_NE)
        self.error += sums.error
        active = sums.acts_NK > 0
        self.num_active += active.sum()
        self.fired_M[sums.indices_NK[active]] = 1

    def tensors(self) -> list[Tensor]:
        """Everything that must be summed over the processes."""
        moments = self.moments
        grads = []
        for p in self._unit.coder.parameters():
            if p.grad is None:  # every token of this process is excluded, but the others wait for its share
                p.grad = torch.zeros_like(p)
            grads.append(p.grad)
        return [*grads, moments.count, moments.sum_D, moments.square, self.error, self.num_active, self.fired_M]

    def finish(self, dead_after: int) -> Tensor:
        """Normalize the gradient, update the dead counters; return (fvu, dead_frac, l0, kept tokens) in float64."""
        variance = self.moments.variance_sum()
        scale_gradients(self._unit.coder, 1 / variance)
        since = self._unit.tokens_since_fired_M
        since += self.moments.count.long()
        since[self.fired_M > 0] = 0
        dead_frac = (since > dead_after).double().mean()
        count = self.moments.count
        return torch.stack([self.error / variance, dead_frac, self.num_active / count, count])


def finish_step(
    sums: dict[str, StepSums], units: list[Unit], optimizer: CoderOptimizer, group: Group, config: RunConfig, step: int
) -> Tensor:
    """Combine the processes, apply optimizer step `step` (from 0), keep decoders at unit norm.

    Returns:
        (number of units, 4) float64 on the device: fvu, dead_frac, l0, kept tokens.
    """
    group.add_up([tensor for unit in units for tensor in sums[unit.name].tensors()])
    stats = torch.stack([sums[unit.name].finish(config.dead_feature_threshold) for unit in units])
    for unit in units:
        if unit.coder.normalizes_decoder:
            unit.coder.remove_parallel_gradient()
    optimizer.step(step)
    for unit in units:
        if unit.coder.normalizes_decoder:
            unit.coder.normalize_decoder()
    return stats
