"""What one optimizer step gathers for one coder, over its micro-batches and over all processes."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from sparsify_core.config import RunConfig
from sparsify_core.model.losses import Moments, loss_sums
from sparsify_core.train.distributed import Group
from sparsify_core.train.optim import CoderOptimizer, scale_gradients
from sparsify_core.train.units import Unit


class StepStats(NamedTuple):
    """Numbers of one coder and step: float64 tensors, or floats once they are on the host."""

    fvu: Any
    dead_frac: Any
    l0: Any
    kept_tokens: Any
    auxk: Any
    multi_topk_fvu: Any


class StepSums:
    """Gradients in the coder's `.grad`, sums of everything else here; the ratio is taken at the end of the step."""

    def __init__(self, unit: Unit, config: RunConfig) -> None:
        coder = unit.coder
        self._unit = unit
        self._config = config
        # b_dec is near the mean of the targets, the same on every process and constant within the step.
        self.moments = Moments(coder.b_dec.detach().clone())
        # error, AuxK, Multi-TopK, active latents
        self.sums_4 = torch.zeros(4, dtype=torch.float64, device=coder.b_dec.device)
        self.fired_M = torch.zeros(coder.num_latents, dtype=torch.int32, device=coder.b_dec.device)
        self._dead_C: Tensor | None = None
        if config.auxk_alpha:
            is_dead_M = unit.tokens_since_fired_M > config.dead_feature_threshold
            self._dead_C = is_dead_M.nonzero().flatten()  # sync

    def add(self, x_ND: Tensor, y_NE: Tensor) -> None:
        """Forward and backward on one batch, in `micro_acc_steps` chunks."""
        chunks = self._config.micro_acc_steps
        for x_part, y_part in zip(x_ND.chunk(chunks), y_NE.chunk(chunks), strict=True):
            self._add_chunk(x_part, y_part)

    def _add_chunk(self, x_ND: Tensor, y_NE: Tensor) -> None:
        with torch.enable_grad():
            sums = loss_sums(
                self._unit.coder,
                x_ND,
                y_NE,
                auxk_alpha=self._config.auxk_alpha,
                dead_C=self._dead_C,
                multi_topk=self._config.sae.multi_topk,
            )
            sums.loss.backward()  # type: ignore[no-untyped-call]
        self.moments.add(y_NE)
        active = sums.acts_NK > 0
        self.sums_4 += torch.stack([sums.error, sums.auxk, sums.multi_topk, active.sum()])
        self.fired_M[sums.indices_NK[active]] = 1

    def tensors(self) -> list[Tensor]:
        """Everything that must be summed over the processes."""
        moments = self.moments
        grads = []
        for p in self._unit.coder.parameters():
            if p.grad is None:  # every token of this process is excluded, but the others wait for its share
                p.grad = torch.zeros_like(p)
            grads.append(p.grad)
        return [*grads, moments.count, moments.sum_D, moments.square, self.sums_4, self.fired_M]

    def finish(self) -> StepStats:
        """Normalize the gradient and update the dead counters."""
        variance, count = self.moments.variance_sum(), self.moments.count
        scale_gradients(self._unit.coder, 1 / variance)
        since = self._unit.tokens_since_fired_M
        since += count.long()
        since[self.fired_M > 0] = 0
        dead_frac = (since > self._config.dead_feature_threshold).double().mean()
        error, auxk, multi_topk, num_active = self.sums_4
        return StepStats(error / variance, dead_frac, num_active / count, count, auxk / variance, multi_topk / variance)


def finish_step(
    sums: dict[str, StepSums], units: list[Unit], optimizer: CoderOptimizer, replicas: Group | None, step: int
) -> Tensor:
    """Combine the processes, apply optimizer step `step` (from 0), keep decoders at unit norm.

    Args:
        replicas: the processes that train the same coders; None when this one has seen all of their tokens.

    Returns:
        (number of units, fields of StepStats) float64 on the device.
    """
    tensors = [tensor for unit in units for tensor in sums[unit.name].tensors()]
    if replicas is not None:
        replicas.add_up(tensors)
    stats = torch.stack([torch.stack(sums[unit.name].finish()) for unit in units])
    for unit in units:
        if unit.coder.normalizes_decoder:
            unit.coder.remove_parallel_gradient()
    optimizer.step(step)
    for unit in units:
        if unit.coder.normalizes_decoder:
            unit.coder.normalize_decoder()
    return stats
