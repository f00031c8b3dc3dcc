"""The end of an optimizer step, coder by coder, while the model's forward and other coders' training go on."""

from collections.abc import Mapping

import torch
from torch import Tensor

from sparsify_core.train.distributed import Group
from sparsify_core.train.optim import CoderOptimizer
from sparsify_core.train.reduction import Reduction
from sparsify_core.train.step import StepSums

_ON_THE_WAY = 2
"""Coders whose gradients may travel while the next one trains. More would only take memory."""


class StepEnd:
    """Combines the processes and applies optimizer step `step` (from 0).

    Args:
        sums: by name of the coder, one of each that this process trains; in the same order on all replicas.
        replicas: the processes that train the same coders; None when this one sees all of their tokens.
    """

    def __init__(
        self, sums: Mapping[str, StepSums], optimizer: CoderOptimizer, replicas: Group | None, step: int
    ) -> None:
        self._sums = sums
        self._optimizer = optimizer
        self._replicas = replicas
        self._step = step
        self._under_way: dict[str, Reduction] = {}
        self._stats: dict[str, Tensor] = {}

    def complete(self, name: str) -> None:
        """This coder has seen its last batch. Alone, it is updated and its gradient let go; of replicas the gradients
        set out, and it is updated behind the next coders' training.

        All replicas complete their coders in the same order.
        """
        tensors = self._sums[name].tensors()
        if self._replicas is None:
            self._update(name)
            return
        self._under_way[name] = self._replicas.start_adding_up(tensors)
        if len(self._under_way) > _ON_THE_WAY:
            self._update_first()

    def finish(self) -> Tensor:
        """Complete and update the coders that are left. Returns (coders, fields of StepStats) float64 on the device."""
        for name in self._sums:
            if name not in self._stats and name not in self._under_way:
                self.complete(name)
        while self._under_way:
            self._update_first()
        return torch.stack([self._stats[name] for name in self._sums])

    def _update_first(self) -> None:
        name = next(iter(self._under_way))
        self._under_way.pop(name).wait()
        self._update(name)

    def _update(self, name: str) -> None:
        stats, scale = self._sums[name].finish()
        self._optimizer.step(self._step, name, scale)
        self._stats[name] = torch.stack(stats)
