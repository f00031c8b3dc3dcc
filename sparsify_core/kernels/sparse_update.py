"""Gradients and optimizer step of a sparse coder at once, without memory for the gradients, in Triton.

Legend as in by_latent.py; D width of the encoder's input, E of the reconstruction, G groups of `_LATENTS` latents.
A program owns a group. Latent by latent it sums the gradients over the first segment, adds what others have found in
the further ones, and steps the latent's rows while the sums are in registers. Sums and steps are those of
sparse_grads.py and update.py, in the same order: the weights that come out are theirs.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from sparsify_core.kernels.by_latent import SEGMENT, sort_by_latent
from sparsify_core.kernels.entry_sums import sum_entries
from sparsify_core.kernels.further_parts import further_parts
from sparsify_core.kernels.rows import load_row, split_width, store_row
from sparsify_core.kernels.sparse_grads import COMBINED_ROWS, check_entries, launch_shape
from sparsify_core.kernels.update import (
    ADAM_EPS,
    BETAS,
    NORM_EPS,
    adam,
    adam_row,
    check_parameter,
    signum,
    signum_row,
)

_LATENTS = 16
"""Of a program, which sums their shares of the centre's gradient: one row of memory for all of them."""
_MAX_NARROW_WIDTH = 1024


class Parameter(NamedTuple):
    """A parameter and its optimizer's state, all float32 of one shape, updated in place.

    state: (z,) for `Signum`, (exp_avg, exp_avg_sq) for `Adam`.
    copy: bfloat16, gets the new weights. Not for b_enc.
    """

    weight: Tensor
    state: tuple[Tensor, ...]
    copy: Tensor | None = None


class Signum(NamedTuple):
    """Schedule-free SignSGD; arguments as in update.signum_update."""

    lr: float
    share: float
    momentum: float


class Adam(NamedTuple):
    """Arguments as in update.adam_update."""

    lr: float
    corrections: Tensor


class Updated(NamedTuple):
    """What else a step gives.

    counts_M: int32, on how many tokens each latent is positive.
    centre_D: float32, scaled gradient of what was subtracted from the encoder's input; None where not asked for.
    """

    counts_M: Tensor
    centre_D: Tensor | None


@triton.jit
def _step_row(
    p_RW, first_RW, second_RW, copy_RW, row, p1, p2, g1, g2, corrections, lr, share, MOMENTUM: tl.constexpr,
    ADAM: tl.constexpr, B1: tl.constexpr, B2: tl.constexpr, EPS: tl.constexpr,
    WIDTH: tl.constexpr, FIRST: tl.constexpr, SECOND: tl.constexpr,
    NORMALIZE: tl.constexpr, NORM_EPS: tl.constexpr, COPY: tl.constexpr,
):  # fmt: skip
    if ADAM:
        adam_row(
            p_RW, first_RW, second_RW, copy_RW, row, p1, p2, g1, g2, corrections, lr, B1, B2, EPS,
            WIDTH, FIRST, SECOND, NORMALIZE, NORM_EPS, COPY,
        )  # fmt: skip
    else:
        signum_row(
            p_RW, first_RW, copy_RW, row, p1, p2, g1, g2, lr, share, MOMENTUM,
            WIDTH, FIRST, SECOND, NORMALIZE, NORM_EPS, COPY,
        )  # fmt: skip


@triton.jit
def _step_number(
    p_M, first_M, second_M, row, g, corrections, lr, share, MOMENTUM: tl.constexpr,
    ADAM: tl.constexpr, B1: tl.constexpr, B2: tl.constexpr, EPS: tl.constexpr,
):  # fmt: skip
    p = tl.load(p_M + row)
    first = tl.load(first_M + row)
    if ADAM:
        second = tl.load(second_M + row)
        p, first, second = adam(
            p, first, second, g, lr, tl.load(corrections), tl.load(corrections + 1), B1, B2, EPS
        )  # fmt: skip
        tl.store(second_M + row, second)
    else:
        p, first = signum(p, first, g, lr, share, MOMENTUM)
    tl.store(p_M + row, p)
    tl.store(first_M + row, first)


@triton.jit
def _update_kernel(
    order_P, starts_M, first_segment_M, tokens_P, acts_P, grad_NE, x_ND, rows_ME,
    part_dec_TE, part_enc_TD, part_bias_T, part_counts_T,
    dec_ME, dec_first_ME, dec_second_ME, dec_copy_ME, enc_MD, enc_first_MD, enc_second_MD, enc_copy_MD,
    bias_M, bias_first_M, bias_second_M, counts_M, centre_GD, scale, corrections, lr, share, num_latents, active,
    E: tl.constexpr, E1: tl.constexpr, E2: tl.constexpr, D: tl.constexpr, D1: tl.constexpr, D2: tl.constexpr,
    LENGTH: tl.constexpr, UNROLL: tl.constexpr, HAS_TOKENS: tl.constexpr, STRAIGHT_THROUGH: tl.constexpr,
    ROWS: tl.constexpr, LATENTS: tl.constexpr, CENTRE: tl.constexpr, NORMALIZE: tl.constexpr, NORM_EPS: tl.constexpr,
    COPY_DEC: tl.constexpr, COPY_ENC: tl.constexpr, MOMENTUM: tl.constexpr,
    ADAM: tl.constexpr, B1: tl.constexpr, B2: tl.constexpr, EPS: tl.constexpr,
):  # fmt: skip
    group = tl.program_id(0)
    first_latent = group * LATENTS
    factor = tl.load(scale)
    centre1 = tl.zeros((D1,), tl.float32)
    centre2 = tl.zeros((D2 if D2 > 0 else 1,), tl.float32)
    for i in range(tl.minimum(LATENTS, num_latents - first_latent)):
        latent = first_latent + i
        row = latent.to(tl.int64)
        begin = tl.load(starts_M + latent)
        # `rows_ME` may be `dec_copy_ME`: of this row nobody reads the old values after this.
        dec1, dec2, enc1, enc2, bias, count = sum_entries(
            begin, tl.minimum(begin + LENGTH, tl.load(starts_M + latent + 1)), row,
            order_P, tokens_P, acts_P, grad_NE, x_ND, rows_ME, acts_P, active,
            E, E1, E2, D, D1, D2, UNROLL, HAS_TOKENS, STRAIGHT_THROUGH, False,
        )  # fmt: skip
        first_segment = tl.load(first_segment_M + latent)
        for further in range(0, tl.load(first_segment_M + latent + 1) - first_segment - 1, ROWS):
            part = (first_segment - latent + further).to(tl.int64)
            more1, more2 = load_row(part_dec_TE, part, True, E, E1, E2)
            dec1 += more1
            dec2 += more2
            more1, more2 = load_row(part_enc_TD, part, True, D, D1, D2)
            enc1 += more1
            enc2 += more2
            bias += tl.load(part_bias_T + part)
            count += tl.load(part_counts_T + part)
        tl.store(counts_M + row, count)
        _step_number(
            bias_M, bias_first_M, bias_second_M, row, bias * factor, corrections, lr, share,
            MOMENTUM, ADAM, B1, B2, EPS,
        )  # fmt: skip
        p1, p2 = load_row(dec_ME, row, True, E, E1, E2)
        _step_row(
            dec_ME, dec_first_ME, dec_second_ME, dec_copy_ME, row, p1, p2, dec1 * factor, dec2 * factor,
            corrections, lr, share, MOMENTUM, ADAM, B1, B2, EPS, E, E1, E2, NORMALIZE, NORM_EPS, COPY_DEC,
        )  # fmt: skip
        p1, p2 = load_row(enc_MD, row, True, D, D1, D2)
        if CENTRE:
            centre1 -= bias * factor * p1
            centre2 -= bias * factor * p2
        _step_row(
            enc_MD, enc_first_MD, enc_second_MD, enc_copy_MD, row, p1, p2, enc1 * factor, enc2 * factor,
            corrections, lr, share, MOMENTUM, ADAM, B1, B2, EPS, D, D1, D2, False, NORM_EPS, COPY_ENC,
        )  # fmt: skip
    if CENTRE:
        store_row(centre_GD, group.to(tl.int64), centre1, centre2, D, D1, D2)


def sparse_update(
    x_ND: Tensor,
    grad_NE: Tensor,
    acts: Tensor,
    indices: Tensor,
    W_dec: Parameter,
    W_enc: Parameter,
    b_enc: Parameter,
    rule: Signum | Adam,
    *,
    scale: Tensor,
    normalize: bool,
    tokens_P: Tensor | None = None,
    straight_through: bool = False,
    with_centre: bool = False,
) -> Updated:
    """One optimizer step of all latents' parameters, in place, from the active latents of one batch.

    The gradients are `scale` times those of sparse_grads.sparse_gradients(x_ND, grad_NE, acts, indices, rows, ...)
    where the rows are W_dec's copy if it has one, else its weights. Latents without entries step too. The same bits in
    every run; with copies and widths above 2,048, the weights and states are bit for bit those of sparse_gradients and
    the updates in turn, which may share `scale` out as a power of 2 for the one and the rest for the other.

    Args:
        x_ND, grad_NE, acts, indices, tokens_P, straight_through: as in sparse_gradients; grad_NE may lack a factor that
            is in `scale`, as the residual does.
        W_dec, W_enc, b_enc: of shapes (M, E), (M, D) and (M). A copy of W_dec must hold its present weights.
        scale: float32 scalar on the device that multiplies the gradients.
        normalize: W_dec has unit rows. Ignore the gradient along each, and keep their norm.
        with_centre: sum also the gradient of what was subtracted from the encoder's input, -b_enc.grad @ W_enc of the
            weights before the step.

    Raises:
        ValueError: shapes, types or memory layouts that do not fit.
    """
    _check(x_ND, grad_NE, acts, indices, tokens_P, [W_dec, W_enc, b_enc], rule, scale)
    rows_ME = W_dec.weight if W_dec.copy is None else W_dec.copy
    num_latents, E = rows_ME.shape
    D = x_ND.shape[1]
    by_latent = sort_by_latent(indices, num_latents)
    tokens, active = (by_latent.order_P, acts.shape[1]) if tokens_P is None else (tokens_P, 1)
    entries = (tokens, acts, grad_NE, x_ND, rows_ME)
    num_warps, unroll = _launch_shape(max(D, E))
    (E1, E2), (D1, D2) = split_width(E), split_width(D)
    shape = {"E": E, "E1": E1, "E2": E2, "D": D, "D1": D1, "D2": D2, "LENGTH": SEGMENT, "UNROLL": unroll}
    shape |= {"HAS_TOKENS": tokens_P is not None, "STRAIGHT_THROUGH": straight_through, "num_warps": num_warps}
    parts = further_parts(by_latent, entries, active, shape)
    num_groups = triton.cdiv(num_latents, _LATENTS)
    counts_M = torch.empty_like(b_enc.weight, dtype=torch.int32)
    centre_GD = torch.empty(num_groups if with_centre else 0, D, device=x_ND.device)
    _update_kernel[(num_groups,)](
        by_latent.order_P, by_latent.starts_M, by_latent.first_segment_M, *entries, *parts,
        *_tensors(W_dec), *_tensors(W_enc), *_tensors(b_enc)[:3], counts_M, centre_GD, scale, *_numbers(rule, scale),
        num_latents, active, **shape, ROWS=COMBINED_ROWS, LATENTS=_LATENTS, CENTRE=with_centre, NORMALIZE=normalize,
        NORM_EPS=NORM_EPS, COPY_DEC=W_dec.copy is not None, COPY_ENC=W_enc.copy is not None,
        MOMENTUM=rule.momentum if isinstance(rule, Signum) else 1.0,
        ADAM=isinstance(rule, Adam), B1=BETAS[0], B2=BETAS[1], EPS=ADAM_EPS,
    )  # fmt: skip
    return Updated(counts_M, centre_GD.sum(0) if with_centre else None)


def _launch_shape(width: int) -> tuple[int, int]:
    # The state's rows come on top of the sums: of narrow ones, one warp would spill.
    return (2, 2) if width <= _MAX_NARROW_WIDTH else launch_shape(width)


def _tensors(parameter: Parameter) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Weight, state and copy for the kernel, which does not touch what is named twice."""
    weight, state, copy = parameter
    return weight, state[0], state[-1], weight if copy is None else copy


def _numbers(rule: Signum | Adam, scale: Tensor) -> tuple[Tensor, float, float]:
    """Corrections, rate and share; what the rule has no use for is not read."""
    return (rule.corrections, rule.lr, 0.0) if isinstance(rule, Adam) else (scale, rule.lr, rule.share)


def _check(
    x_ND: Tensor,
    grad_NE: Tensor,
    acts: Tensor,
    indices: Tensor,
    tokens_P: Tensor | None,
    parameters: list[Parameter],
    rule: Signum | Adam,
    scale: Tensor,
) -> None:
    W_dec, W_enc, b_enc = parameters
    check_entries(x_ND, grad_NE, acts, indices, W_dec.weight, tokens_P)
    num_latents = len(W_dec.weight)
    if W_enc.weight.shape != (num_latents, x_ND.shape[1]) or b_enc.weight.shape != (num_latents,):
        shapes = [tuple(p.weight.shape) for p in parameters]
        raise ValueError(f"W_dec, W_enc and b_enc have the shapes {shapes}: pass (M, E), (M, D) and (M)")
    wanted = 2 if isinstance(rule, Adam) else 1
    for weight, state, copy in parameters:
        if len(state) != wanted:
            raise ValueError(f"{type(rule).__name__} keeps {wanted} tensors per parameter, got {len(state)}: pass them")
        check_parameter([weight, *state], scale, normalize=False, copy=copy)
    if b_enc.copy is not None:
        raise ValueError("b_enc has a copy, which nobody would write: pass None")
