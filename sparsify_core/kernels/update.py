"""The whole optimizer step of one parameter in one pass over its memory, in Triton.

Per row of a decoder of unit norm: scale the gradient, take out what points along the row, update weight and state,
bring the row back to unit norm. Other parameters are flat lists of numbers. The state is that of the optimizers in
train/optim.py, which these updates equal up to float32 rounding: schedule-free SignSGD (Defazio et al. 2024) and Adam.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from sparsify_core.kernels.rows import dot, load_row, split_width, store_row

_FLAT_BLOCK = 1024
BETAS = (0.9, 0.999)
ADAM_EPS = 1e-8
NORM_EPS = torch.finfo(torch.float32).eps


@triton.jit
def lerp(start, end, weight):
    # Of torch.lerp's two forms the one that is exact at the nearer end.
    return tl.where(weight < 0.5, start + weight * (end - start), end - (end - start) * (1.0 - weight))


@triton.jit
def signum(y, z, grad, lr, share, MOMENTUM: tl.constexpr):
    """SignSGD moves z; x is its average, to deploy; y = (1 - MOMENTUM) z + MOMENTUM x, where the gradient was taken."""
    x = lerp(y, z, 1.0 - 1.0 / MOMENTUM)
    sign = (grad > 0).to(tl.float32) - (grad < 0).to(tl.float32)
    z -= lr * tl.where(grad == grad, sign, grad)  # NaN has no sign, and must be seen
    x = lerp(x, z, share)
    return lerp(x, z, 1.0 - MOMENTUM), z


@triton.jit
def adam(
    p, average, square, grad, lr, correction, root_correction, B1: tl.constexpr, B2: tl.constexpr, EPS: tl.constexpr
):
    average += (1.0 - B1) * (grad - average)
    square = B2 * square + (1.0 - B2) * grad * grad
    p -= (lr / correction) * (average / (tl.sqrt(square) / root_correction + EPS))
    return p, average, square


@triton.jit
def _signum_flat_kernel(
    y_P, z_P, grad_P, copy_P, scale, lr, share, num_entries, MOMENTUM: tl.constexpr, COPY: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    ok = at < num_entries
    grad = tl.load(grad_P + at, mask=ok, other=0.0) * tl.load(scale)
    y = tl.load(y_P + at, mask=ok, other=0.0)
    z = tl.load(z_P + at, mask=ok, other=0.0)
    y, z = signum(y, z, grad, lr, share, MOMENTUM)
    tl.store(y_P + at, y, mask=ok)
    tl.store(z_P + at, z, mask=ok)
    if COPY:
        tl.store(copy_P + at, y.to(tl.bfloat16), mask=ok)


@triton.jit
def _adam_flat_kernel(
    p_P, average_P, square_P, grad_P, copy_P, scale, corrections, lr, num_entries,
    B1: tl.constexpr, B2: tl.constexpr, EPS: tl.constexpr, COPY: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    ok = at < num_entries
    grad = tl.load(grad_P + at, mask=ok, other=0.0) * tl.load(scale)
    p = tl.load(p_P + at, mask=ok, other=0.0)
    average = tl.load(average_P + at, mask=ok, other=0.0)
    square = tl.load(square_P + at, mask=ok, other=0.0)
    p, average, square = adam(p, average, square, grad, lr, tl.load(corrections), tl.load(corrections + 1), B1, B2, EPS)
    tl.store(p_P + at, p, mask=ok)
    tl.store(average_P + at, average, mask=ok)
    tl.store(square_P + at, square, mask=ok)
    if COPY:
        tl.store(copy_P + at, p.to(tl.bfloat16), mask=ok)


@triton.jit
def tangent(p1, p2, g1, g2):
    """A gradient in pieces without what points along a row of unit norm."""
    along = dot(g1, g2, p1, p2)
    return g1 - along * p1, g2 - along * p2


@triton.jit
def _store_weights(
    p_RW, copy_RW, row, p1, p2, WIDTH: tl.constexpr, FIRST: tl.constexpr, SECOND: tl.constexpr,
    NORMALIZE: tl.constexpr, NORM_EPS: tl.constexpr, COPY: tl.constexpr,
):  # fmt: skip
    if NORMALIZE:
        norm = tl.sqrt_rn(dot(p1, p2, p1, p2)) + NORM_EPS
        p1 /= norm
        p2 /= norm
    store_row(p_RW, row, p1, p2, WIDTH, FIRST, SECOND, ONCE=True)
    if COPY:
        store_row(copy_RW, row, p1, p2, WIDTH, FIRST, SECOND, ONCE=True)


@triton.jit
def signum_row(
    y_RW, z_RW, copy_RW, row, y1, y2, g1, g2, lr, share, MOMENTUM: tl.constexpr,
    WIDTH: tl.constexpr, FIRST: tl.constexpr, SECOND: tl.constexpr,
    NORMALIZE: tl.constexpr, NORM_EPS: tl.constexpr, COPY: tl.constexpr,
):  # fmt: skip
    """Step a row from its weights y and its scaled gradient, both in pieces."""
    if NORMALIZE:
        g1, g2 = tangent(y1, y2, g1, g2)
    z1, z2 = load_row(z_RW, row, True, WIDTH, FIRST, SECOND, ONCE=True)
    y1, z1 = signum(y1, z1, g1, lr, share, MOMENTUM)
    y2, z2 = signum(y2, z2, g2, lr, share, MOMENTUM)
    store_row(z_RW, row, z1, z2, WIDTH, FIRST, SECOND, ONCE=True)
    _store_weights(y_RW, copy_RW, row, y1, y2, WIDTH, FIRST, SECOND, NORMALIZE, NORM_EPS, COPY)


@triton.jit
def adam_row(
    p_RW, average_RW, square_RW, copy_RW, row, p1, p2, g1, g2, corrections, lr,
    B1: tl.constexpr, B2: tl.constexpr, EPS: tl.constexpr,
    WIDTH: tl.constexpr, FIRST: tl.constexpr, SECOND: tl.constexpr,
    NORMALIZE: tl.constexpr, NORM_EPS: tl.constexpr, COPY: tl.constexpr,
):  # fmt: skip
    """Step a row from its weights p and its scaled gradient, both in pieces."""
    if NORMALIZE:
        g1, g2 = tangent(p1, p2, g1, g2)
    a1, a2 = load_row(average_RW, row, True, WIDTH, FIRST, SECOND, ONCE=True)
    s1, s2 = load_row(square_RW, row, True, WIDTH, FIRST, SECOND, ONCE=True)
    correction = tl.load(corrections)
    root_correction = tl.load(corrections + 1)
    p1, a1, s1 = adam(p1, a1, s1, g1, lr, correction, root_correction, B1, B2, EPS)
    p2, a2, s2 = adam(p2, a2, s2, g2, lr, correction, root_correction, B1, B2, EPS)
    store_row(average_RW, row, a1, a2, WIDTH, FIRST, SECOND, ONCE=True)
    store_row(square_RW, row, s1, s2, WIDTH, FIRST, SECOND, ONCE=True)
    _store_weights(p_RW, copy_RW, row, p1, p2, WIDTH, FIRST, SECOND, NORMALIZE, NORM_EPS, COPY)


@triton.jit
def load_scaled(grad_RW, row, scale, WIDTH: tl.constexpr, FIRST: tl.constexpr, SECOND: tl.constexpr):
    g1, g2 = load_row(grad_RW, row, True, WIDTH, FIRST, SECOND)
    factor = tl.load(scale)
    return g1 * factor, g2 * factor


@triton.jit
def _signum_rows_kernel(
    y_RW, z_RW, grad_RW, copy_RW, scale, lr, share, MOMENTUM: tl.constexpr, COPY: tl.constexpr,
    WIDTH: tl.constexpr, FIRST: tl.constexpr, SECOND: tl.constexpr, NORM_EPS: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    y1, y2 = load_row(y_RW, row, True, WIDTH, FIRST, SECOND)
    g1, g2 = load_scaled(grad_RW, row, scale, WIDTH, FIRST, SECOND)
    signum_row(
        y_RW, z_RW, copy_RW, row, y1, y2, g1, g2, lr, share, MOMENTUM, WIDTH, FIRST, SECOND, True, NORM_EPS, COPY
    )


@triton.jit
def _adam_rows_kernel(
    p_RW, average_RW, square_RW, grad_RW, copy_RW, scale, corrections, lr,
    B1: tl.constexpr, B2: tl.constexpr, EPS: tl.constexpr, COPY: tl.constexpr,
    WIDTH: tl.constexpr, FIRST: tl.constexpr, SECOND: tl.constexpr, NORM_EPS: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    p1, p2 = load_row(p_RW, row, True, WIDTH, FIRST, SECOND)
    g1, g2 = load_scaled(grad_RW, row, scale, WIDTH, FIRST, SECOND)
    adam_row(
        p_RW, average_RW, square_RW, copy_RW, row, p1, p2, g1, g2, corrections, lr, B1, B2, EPS,
        WIDTH, FIRST, SECOND, True, NORM_EPS, COPY,
    )  # fmt: skip


def signum_update(
    y: Tensor,
    z: Tensor,
    grad: Tensor,
    *,
    scale: Tensor,
    lr: float,
    share: float,
    momentum: float,
    normalize: bool = False,
    copy: Tensor | None = None,
) -> None:
    """One step of schedule-free SignSGD, in place.

    Args:
        y, z, grad: float32, contiguous, of one shape: the weights trained on, the state, the gradient.
        scale: float32 scalar on the device that multiplies the gradient.
        share: of this step in the average, from `averaging_share`.
        normalize: y is a matrix of unit rows. Ignore the gradient along each, and keep their norm.
        copy: bfloat16 of the same shape, which gets the new y.

    Raises:
        ValueError: shapes, types or memory layouts that do not fit.
    """
    check_parameter([y, z, grad], scale, normalize, copy)
    tensors = (y, z, grad, y if copy is None else copy, scale)
    options = {"MOMENTUM": momentum, "COPY": copy is not None}
    if normalize:
        _signum_rows_kernel[(len(y),)](*tensors, lr, share, **options, **row_options(y), NORM_EPS=NORM_EPS)
    else:
        grid = (triton.cdiv(y.numel(), _FLAT_BLOCK),)
        _signum_flat_kernel[grid](*tensors, lr, share, y.numel(), **options, BLOCK=_FLAT_BLOCK)


def adam_update(
    p: Tensor,
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
    grad: Tensor,
    *,
    scale: Tensor,
    corrections: Tensor,
    lr: float,
    normalize: bool = False,
    copy: Tensor | None = None,
) -> None:
    """One step of torch.optim.Adam with its default rates, in place; arguments as in `signum_update`.

    Args:
        corrections: from `adam_corrections`.
    """
    check_parameter([p, exp_avg, exp_avg_sq, grad], scale, normalize, copy)
    tensors = (p, exp_avg, exp_avg_sq, grad, p if copy is None else copy, scale, corrections)
    options = {"B1": BETAS[0], "B2": BETAS[1], "EPS": ADAM_EPS, "COPY": copy is not None}
    if normalize:
        _adam_rows_kernel[(len(p),)](*tensors, lr, **options, **row_options(p), NORM_EPS=NORM_EPS)
    else:
        grid = (triton.cdiv(p.numel(), _FLAT_BLOCK),)
        _adam_flat_kernel[grid](*tensors, lr, p.numel(), **options, BLOCK=_FLAT_BLOCK)


def averaging_share(group: dict[str, Any]) -> float:
    """Weight of the coming step in the average of a schedule-free parameter group, whose scalars go one step on.

    share = lr_max^2 / (sum of lr_max^2 so far), with the largest rate so far, as schedulefree's wrapper has it.
    """
    group["lr_max"] = max(group["lr"], group.get("lr_max", 0))
    weight = group["lr_max"] ** 2
    group["weight_sum"] = group.get("weight_sum", 0.0) + weight
    group["k"] = group.get("k", 0) + 1
    return float(weight / group["weight_sum"])


def adam_corrections(step: Tensor) -> Tensor:
    """float32 (2) on the device: 1 - beta1^t and sqrt(1 - beta2^t) of step number t, a scalar that counts from 1.

    In float64: 1 - 0.999^t loses four digits in float32.
    """
    exponent = step.double()
    first, second = (1 - torch.pow(beta, exponent) for beta in BETAS)
    return torch.stack([first, second.sqrt()]).float()


def row_options(matrix_RW: Tensor) -> dict[str, int]:
    """How a kernel of one program per row is launched."""
    width = matrix_RW.shape[1]
    first, second = split_width(width)
    num_warps = 4 if width <= 1024 else 8
    return {"WIDTH": width, "FIRST": first, "SECOND": second, "num_warps": num_warps}


def check_parameter(tensors: list[Tensor], scale: Tensor, normalize: bool, copy: Tensor | None) -> None:
    shape = tensors[0].shape
    for tensor in [*tensors, *([] if copy is None else [copy])]:
        dtype = torch.bfloat16 if tensor is copy else torch.float32
        if tensor.shape != shape or tensor.dtype != dtype or not tensor.is_contiguous():
            raise ValueError(
                f"got {tensor.dtype} {tuple(tensor.shape)} with strides {tensor.stride()}: "
                f"pass a contiguous {dtype} of shape {tuple(shape)}"
            )
    if scale.numel() != 1 or scale.dtype != torch.float32:
        raise ValueError(f"the scale is {scale.dtype} {tuple(scale.shape)}: pass a float32 scalar")
    if normalize and len(shape) != 2:
        raise ValueError(f"only rows of a matrix can be normalized, got the shape {tuple(shape)}: pass a matrix")
