"""The end of an optimizer step, coder by coder, while the model and other coders' training go on."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from sparsify_core.train.distributed import Group
from sparsify_core.train.optim import CoderOptimizer
from sparsify_core.train.reduction import Reduction
from sparsify_core.train.step import StepStats, StepSums

_TRAVELLING = 2
"""Coders whose gradients may be on their way while the next one trains. More would only take memory."""


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
        self._counts: dict[str, Reduction] = {}
        self._gradients: dict[str, Reduction] = {}
        self._finished: dict[str, tuple[StepStats, Tensor]] = {}

    def complete(self, name: str) -> None:
        """This coder has seen its last batch. Alone, it is updated and its gradient let go; of replicas the gradients
        set out, and it is updated when those of other coders are on their way.

        All replicas complete their coders in the same order.
        """
        if self._sums[name].entries is not None:
            self._counts[name] = Reduction([])
            # The step finds which latents fired: only then are the sums finished.
            self._optimizer.step(self._step, name, self._sums[name].scale(), self._sums[name].take_entries())
            return
        matrices, others = self._sums[name].tensors()
        self._counts[name], self._gradients[name] = self._add_up(others), self._add_up(matrices)
        while len(self._gradients) > (0 if self._replicas is None else _TRAVELLING):
            self._update_first()

    def finish(self) -> Tensor:
        """Complete the coders that are left. Returns (coders, fields of StepStats) float64 on the device.

        Of replicas the last coders are not updated yet: `settle` before anybody looks at their weights.
        """
        for name in self._sums:
            if name not in self._counts:
                self.complete(name)
        return torch.stack([torch.stack(self._finish(name)[0]) for name in self._sums])

    def settle(self) -> None:
        """Update the coders whose gradients were on their way: by now the model's next forward hides that."""
        while self._gradients:
            self._update_first()

    def _add_up(self, tensors: Sequence[Tensor]) -> Reduction:
        return Reduction([]) if self._replicas is None else self._replicas.start_adding_up(tensors)

    def _finish(self, name: str) -> tuple[StepStats, Tensor]:
        if name not in self._finished:
            self._counts[name].wait()
            self._finished[name] = self._sums[name].finish()
        return self._finished[name]

    def _update_first(self) -> None:
        name = next(iter(self._gradients))
        _, scale = self._finish(name)
        self._gradients.pop(name).wait()
        self._optimizer.step(self._step, name, scale)
