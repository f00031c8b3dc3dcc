"""Muon: momentum whose matrix updates are made orthogonal (Jordan et al. 2024; scaling of Liu et al. 2025).

Gradients are the same on every process when it steps, so every process computes every update: nothing is sent, and
replicas cannot take each other's updates (as upstream's do).
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

_QUINTIC = (3.4445, -4.7750, 2.0315)
_NUM_ITERATIONS = 5
_GRAM_RATIO = 16
"""From this ratio of a matrix's sides on, iterating on its Gram matrix costs less, by the counts below."""
_MAX_FLOAT32 = 1024
"""Rows of a Gram matrix that is multiplied in float32 as it is."""
_EPS = 1e-7
"""Added to norms, as upstream does."""
MOMENTUM = 0.95


class Muon(torch.optim.Optimizer):
    """For matrices only. State `exp_avg` is an average with weight 1 - MOMENTUM, looked ahead by Nesterov's rule."""

    def __init__(self, params: list[dict[str, Any]], *, weight_decay: float = 0.1) -> None:
        super().__init__(params, {"lr": 0.0})
        self._weight_decay = weight_decay

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        self.step_by(self._look_ahead)

    @torch.no_grad()
    def step_by(self, look_ahead: Callable[[Tensor, Tensor], Tensor]) -> None:
        """A step, with another way to take in the gradients.

        Args:
            look_ahead: (parameter, average) -> what Nesterov's rule makes of the gradient and the average, which it
                takes the gradient into, of any scale.
        """
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            keep = 1 - group["lr"] * self._weight_decay
            for shape in dict.fromkeys(p.shape for p in params):
                alike = [p for p in params if p.shape == shape]
                # The factor gives updates the typical size of adam's, whatever the shape.
                lr = group["lr"] * 0.2 * math.sqrt(max(shape))
                # Small ones go together: each of their many products is done before the next one is launched.
                if len(alike) > 1 and min(shape) <= _MAX_FLOAT32:
                    directions = orthogonalize(torch.stack([look_ahead(p, self._average(p)) for p in alike]))
                    for p, direction in zip(alike, directions, strict=True):
                        p.mul_(keep).add_(direction, alpha=-lr)
                    continue
                for p in alike:
                    add_orthogonalized(p.data, look_ahead(p, self._average(p)), keep=keep, alpha=-lr)

    def _average(self, p: Tensor) -> Tensor:
        state = self.state[p]
        if "exp_avg" not in state:
            state["exp_avg"] = torch.zeros_like(p)
        return torch.as_tensor(state["exp_avg"])

    def _look_ahead(self, p: Tensor, average: Tensor) -> Tensor:
        grad = torch.as_tensor(p.grad)  # which is used up
        average.lerp_(grad, 1 - MOMENTUM)
        return grad.lerp_(average, MOMENTUM)


def add_orthogonalized(p: Tensor, matrix: Tensor, *, keep: float, alpha: float) -> None:
    """p <- keep * p + alpha * orthogonalize(matrix), in place."""
    if not (matrix.is_cuda and _is_long(matrix) and min(matrix.shape) > _MAX_FLOAT32):
        p.mul_(keep).add_(orthogonalize(matrix), alpha=alpha)
        return
    x = matrix.bfloat16()
    is_tall = x.shape[0] > x.shape[1]
    total_SS = gram_polynomial(x.mT if is_tall else x)
    # The products are added to the weights where they arise: as matrices of their own they would be the largest memory.
    for part_SS in _pair(total_SS):
        left, right = (x, part_SS.mT) if is_tall else (part_SS, x)
        torch.addmm(p, left, right, out_dtype=torch.float32, beta=keep, alpha=alpha, out=p)
        keep = 1.0


def orthogonalize(matrices: Tensor) -> Tensor:
    """Bring all singular values of matrices (..., R, C) near 1 (about 0.7 to 1.2) by Newton-Schulz iterations.

    In bfloat16 on CUDA, where it is fast; in float32 elsewhere, where bfloat16 is slow.
    """
    x: Tensor = matrices.bfloat16() if matrices.is_cuda else matrices.float()
    is_tall = x.shape[-2] > x.shape[-1]
    x = iterate_on_gram(x.mT if is_tall else x) if _is_long(x) else iterate(_normalized(x.mT if is_tall else x))
    return x.mT if is_tall else x


def _is_long(matrices: Tensor) -> bool:
    short, long = sorted(matrices.shape[-2:])
    return long >= _GRAM_RATIO * short


def _normalized(x: Tensor) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(x, dim=(-2, -1), keepdim=True, dtype=torch.float32)
    return x / (norm + _EPS).to(x.dtype)


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
    """The same of x / |x|, in float32, with two products with the long matrix instead of ten."""
    total_SS = gram_polynomial(x_SL)
    return _multiply(_pair(total_SS) if x_SL.dtype == torch.bfloat16 else (total_SS,), (x_SL,))


def gram_polynomial(x_SL: Tensor) -> Tensor:
    """The symmetric float32 matrix T by which the iterations multiply x / |x|, for x itself: divided by |x|.

    Every iteration multiplies x from the left by F = a + b G + c G^2, and G by F from both sides, so only G has to be
    iterated; T is the product of all F. Small singular values are squared in G and grow by 3.4 an iteration: bfloat16
    would drown them, pairs of it do not. All of these matrices commute, so that G F^2 is as good as F G F, and squares
    of symmetric pairs take one product less: 1.5 S^2 L + 84 S^3 operations, and 4 S^2 L for T x.

    Only low times low of pairs is left out. Of matrices whose singular values span two to four decades the result is
    0.02 to 0.05 off the iteration in float64, nearly all of it from rounding x to bfloat16; upstream's iteration in
    bfloat16 throughout is 0.05 to 0.12 off.
    """
    a, b, c = _QUINTIC
    gram = _gram(x_SL)
    norm = gram.diagonal(dim1=-2, dim2=-1).sum(-1).sqrt()[..., None, None] + _EPS
    gram /= norm.square()
    # On CUDA float32 is a tenth as fast, but so little work that launching the parts of pairs would take longer.
    in_pairs = x_SL.dtype == torch.bfloat16 and gram.shape[-1] > _MAX_FLOAT32
    total: Tensor | None = None
    for remaining in reversed(range(_NUM_ITERATIONS)):
        grams = _pair(gram) if in_pairs else (gram,)
        factor = _square(grams).mul_(c).add_(gram, alpha=b)
        factor.diagonal(dim1=-2, dim2=-1).add_(a)
        factors = _pair(factor) if in_pairs else (factor,)
        total = factor if total is None else _multiply(factors, _pair(total) if in_pairs else (total,))
        if remaining:
            square = _square(factors)
            gram = _multiply(grams, _pair(square) if in_pairs else (square,))
            gram = (gram + gram.mT).div_(2)  # rounding would break the symmetry, and the iteration with it
    return torch.as_tensor(total) / norm


def _gram(x_SL: Tensor) -> Tensor:
    """x x^T in float32. Of a large one the upper right quarter is copied from the lower left one."""
    if x_SL.shape[-2] <= _MAX_FLOAT32:
        return _product(x_SL, x_SL.mT)
    half = x_SL.shape[-2] // 2
    top, bottom = x_SL[..., :half, :], x_SL[..., half:, :]
    left = torch.cat([_product(top, top.mT), _product(bottom, top.mT)], -2)
    right = torch.cat([left[..., half:, :].mT, _product(bottom, bottom.mT)], -2)
    return torch.cat([left, right], -1)


def _square(parts: tuple[Tensor, ...]) -> Tensor:
    """The square of a symmetric matrix in parts."""
    high, *low = parts
    square = _product(high, high)
    for part in low:
        cross = _product(high, part)
        square += cross
        square += cross.mT
    return square


def _multiply(left: tuple[Tensor, ...], right: tuple[Tensor, ...]) -> Tensor:
    """The product in float32 of matrices in parts; low times low is left out."""
    product = _product(left[0], right[0])
    for part in left[1:]:
        product += _product(part, right[0])
    for part in right[1:]:
        product += _product(left[0], part)
    return product


def _product(left: Tensor, right: Tensor) -> Tensor:
    if left.is_cuda and left.dtype == torch.bfloat16:
        multiply = torch.mm if left.dim() == 2 else torch.bmm
        return multiply(left, right, out_dtype=torch.float32)
    return left.float() @ right.float()


def _pair(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """A float32 matrix as the sum of two in bfloat16."""
    high = matrix.bfloat16()
    return high, torch.sub(matrix, high, out=torch.empty_like(high))
