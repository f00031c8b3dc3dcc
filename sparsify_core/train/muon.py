"""Muon: momentum whose matrix updates are made orthogonal (Jordan et al. 2024; scaling of Liu et al. 2025).

Gradients are the same on every process when it steps, so every process computes every update: nothing is sent, and
replicas cannot take each other's updates (as upstream's do).
"""

import math
from typing import Any

import torch
from torch import Tensor

_QUINTIC = (3.4445, -4.7750, 2.0315)
_NUM_ITERATIONS = 5


class Muon(torch.optim.Optimizer):
    """For matrices only. State `exp_avg` is an average with weight 1 - momentum, looked ahead by Nesterov's rule."""

    def __init__(self, params: list[dict[str, Any]], *, momentum: float = 0.95, weight_decay: float = 0.1) -> None:
        super().__init__(params, {"lr": 0.0})
        self._momentum = momentum
        self._weight_decay = weight_decay

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                self._update(p, group["lr"])

    def _update(self, p: Tensor, lr: float) -> None:
        if p.grad is None:
            return
        state = self.state[p]
        if "exp_avg" not in state:
            state["exp_avg"] = torch.zeros_like(p)
        average = state["exp_avg"]
        average.lerp_(p.grad, 1 - self._momentum)
        direction = orthogonalize(p.grad.lerp(average, self._momentum))
        p.mul_(1 - lr * self._weight_decay)
        # The factor gives updates the typical size of adam's, whatever the shape.
        p.add_(direction.to(p.dtype), alpha=-lr * 0.2 * math.sqrt(max(p.shape)))


def orthogonalize(matrix: Tensor) -> Tensor:
    """Bring all singular values of a matrix near 1 (about 0.7 to 1.2) by Newton-Schulz iterations.

    In bfloat16 on CUDA, where it is fast; in float32 elsewhere, where bfloat16 is slow.
    """
    a, b, c = _QUINTIC
    x: Tensor = matrix.bfloat16() if matrix.is_cuda else matrix.float()
    is_tall = x.shape[0] > x.shape[1]
    if is_tall:
        x = x.T
    x = x / (x.norm() + 1e-7)
    for _ in range(_NUM_ITERATIONS):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if is_tall else x
