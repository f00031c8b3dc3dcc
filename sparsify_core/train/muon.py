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
_GRAM_RATIO = 16
"""From this ratio of a matrix's sides on, iterating on its Gram matrix costs less, by the counts below."""
_MAX_FLOAT32 = 1024
"""Rows of a Gram matrix that is multiplied in float32 as it is."""


class Muon(torch.optim.Optimizer):
    """For matrices only. State `exp_avg` is an average with weight 1 - momentum, looked ahead by Nesterov's rule."""

    def __init__(self, params: list[dict[str, Any]], *, momentum: float = 0.95, weight_decay: float = 0.1) -> None:
        super().__init__(params, {"lr": 0.0})
        self._momentum = momentum
        self._weight_decay = weight_decay

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            for shape in dict.fromkeys(p.shape for p in params):
                alike = [p for p in params if p.shape == shape]
                # Small ones go together: each of their many products is done before the next one is launched.
                if len(alike) > 1 and min(shape) <= _MAX_FLOAT32:
                    directions = orthogonalize(torch.stack([self._look_ahead(p) for p in alike]))
                    for p, direction in zip(alike, directions, strict=True):
                        self._move(p, direction, group["lr"])
                    continue
                for p in alike:
                    self._move(p, orthogonalize(self._look_ahead(p)), group["lr"])

    def _look_ahead(self, p: Tensor) -> Tensor:
        """Take the gradient, which is used up, into the average; what Nesterov's rule makes of the two."""
        state = self.state[p]
        if "exp_avg" not in state:
            state["exp_avg"] = torch.zeros_like(p)
        grad, average = torch.as_tensor(p.grad), state["exp_avg"]
        average.lerp_(grad, 1 - self._momentum)
        return grad.lerp_(average, self._momentum)

    def _move(self, p: Tensor, direction: Tensor, lr: float) -> None:
        p.mul_(1 - lr * self._weight_decay)
        # The factor gives updates the typical size of adam's, whatever the shape.
        p.add_(direction, alpha=-lr * 0.2 * math.sqrt(max(p.shape)))


def orthogonalize(matrices: Tensor) -> Tensor:
    """Bring all singular values of matrices (..., R, C) near 1 (about 0.7 to 1.2) by Newton-Schulz iterations.

    In bfloat16 on CUDA, where it is fast; in float32 elsewhere, where bfloat16 is slow.
    """
    x: Tensor = matrices.bfloat16() if matrices.is_cuda else matrices.float()
    is_tall = x.shape[-2] > x.shape[-1]
    if is_tall:
        x = x.mT
    norm = torch.linalg.vector_norm(x, dim=(-2, -1), keepdim=True, dtype=torch.float32)
    x = x / (norm + 1e-7).to(x.dtype)
    x = iterate_on_gram(x) if x.shape[-1] >= _GRAM_RATIO * x.shape[-2] else iterate(x)
    return x.mT if is_tall else x


def iterate(x_SL: Tensor) -> Tensor:
    """x <- a x + (b G + c G^2) x with G = x x^T, five times. Singular values must be at most 1.

    20 S^2 L + 10 S^3 operations for a short side of S and a long one of L.
    """
    a, b, c = _QUINTIC
    for _ in range(_NUM_ITERATIONS):
        gram = x_SL @ x_SL.mT
        x_SL = a * x_SL + (b * gram + c * gram @ gram) @ x_SL
    return x_SL


def iterate_on_gram(x_SL: Tensor) -> Tensor:
    """The same in float32, with two products with the long matrix instead of ten.

    Every iteration multiplies x from the left by F = a + b G + c G^2, and G by F from both sides, so only G has to be
    iterated; x is multiplied by the product of all F in the end. Small singular values are squared in G and grow by
    3.4 an iteration: bfloat16 would drown them, pairs of it do not (6 S^2 L + 102 S^3 operations).
    """
    a, b, c = _QUINTIC
    gram = _multiply(x_SL, x_SL.mT)
    # On CUDA float32 is a tenth as fast, but so little work that launching the parts of pairs would take longer.
    in_pairs = x_SL.dtype == torch.bfloat16 and gram.shape[-1] > _MAX_FLOAT32
    total = identity = torch.eye(gram.shape[-1], device=gram.device)
    for remaining in reversed(range(_NUM_ITERATIONS)):
        factor = _multiply(gram, gram, in_pairs=in_pairs).mul_(c).add_(gram, alpha=b)
        factor.diagonal(dim1=-2, dim2=-1).add_(a)
        total = factor if total is identity else _multiply(factor, total, in_pairs=in_pairs)
        if remaining:
            gram = _multiply(_multiply(factor, gram, in_pairs=in_pairs), factor, in_pairs=in_pairs)
            gram = (gram + gram.mT).div_(2)  # rounding would break the symmetry, and the iteration with it
    return _multiply(total, x_SL, in_pairs=x_SL.dtype == torch.bfloat16)


def _multiply(left: Tensor, right: Tensor, *, in_pairs: bool = False) -> Tensor:
    """The product in float32. With `in_pairs`, float32 factors are sums of two bfloat16; low times low is left out."""
    if in_pairs and right.dtype == torch.bfloat16:  # the long matrix, which is not worth a copy
        high, low = _pair(left)
        return _multiply(high, right).add_(_multiply(low, right))
    if in_pairs:
        terms = [(own, other) for i, own in enumerate(_pair(left)) for j, other in enumerate(_pair(right)) if i + j < 2]
        # One long product adds up the terms without writing any of them.
        left, right = torch.cat([term[0] for term in terms], -1), torch.cat([term[1] for term in terms], -2)
    if left.is_cuda and left.dtype == torch.bfloat16:
        multiply = torch.mm if left.dim() == 2 else torch.bmm
        return multiply(left, right, out_dtype=torch.float32)
    return left.float() @ right.float()


def _pair(matrix: Tensor) -> tuple[Tensor, ...]:
    if matrix.dtype == torch.bfloat16:
        return (matrix,)
    high = matrix.bfloat16()
    return high, (matrix - high).bfloat16()
