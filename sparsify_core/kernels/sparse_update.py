"""Gradients and optimizer step of a sparse coder at once, without memory for the gradients, in Triton.

Legend as in by_latent.py; D width of the encoder's input, E of the reconstruction, G groups of `_LATENTS` latents.
A program owns a latent's decoder row and bias, another one a slab of a group's encoder rows. It sums a row's gradient
over the first segment, adds what others have found in the further ones, and steps the row while the sum is in
registers. Sums and steps are those of sparse_grads.py and update.py, in the same order: the weights that come out are
theirs.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from sparsify_core.kernels.by_latent import SEGMENT, sort_by_latent
from sparsify_core.kernels.entry_launches import decoder_launch, encoder_launch, step_launch
from sparsify_core.kernels.entry_sums import entries_of, sum_decoder, sum_encoder
from sparsify_core.kernels.further_parts import EntryTensors, further_parts
from sparsify_core.kernels.rows import load_row, store_row
from sparsify_core.kernels.sparse_grads import COMBINED_ROWS, check_entries
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
def _decoder_step_kernel(
    order_P, starts_M, first_segment_M, tokens_P, acts_P, grad_NE, rows_ME, slopes_P,
    part_dec_TE, part_bias_T, part_counts_T,
    dec_ME, dec_first_ME, dec_second_ME, dec_copy_ME, bias_M, bias_first_M, bias_second_M, counts_M, bias_grad_M,
    scale, corrections, lr, share, active,
    E: tl.constexpr, E1: tl.constexpr, E2: tl.constexpr, UNROLL: tl.constexpr,
    LENGTH: tl.constexpr, HAS_TOKENS: tl.constexpr, STRAIGHT_THROUGH: tl.constexpr, ROWS: tl.constexpr,
    NORMALIZE: tl.constexpr, NORM_EPS: tl.constexpr, COPY: tl.constexpr, MOMENTUM: tl.constexpr,
    ADAM: tl.constexpr, B1: tl.constexpr, B2: tl.constexpr, EPS: tl.constexpr,
):  # fmt: skip
    """Steps the decoder's row and the bias of a latent, and leaves the bias's gradient and the slopes behind."""
    latent = tl.program_id(0)
    row = latent.to(tl.int64)
    first_segment = tl.load(first_segment_M + latent)
    begin, end = entries_of(first_segment, latent, starts_M, first_segment_M, LENGTH)
    # `rows_ME` may be `dec_copy_ME`: of this row nobody reads the old values after this.
    dec1, dec2, bias, count = sum_decoder(
        begin, end, row, order_P, tokens_P, acts_P, grad_NE, rows_ME, slopes_P, active,
        E, E1, E2, UNROLL, HAS_TOKENS, STRAIGHT_THROUGH,
    )  # fmt: skip
    for further in range(0, tl.load(first_segment_M + latent + 1) - first_segment - 1, ROWS):
        part = (first_segment - latent + further).to(tl.int64)
        more1, more2 = load_row(part_dec_TE, part, True, E, E1, E2)
        dec1 += more1
        dec2 += more2
        bias += tl.load(part_bias_T + part)
        count += tl.load(part_counts_T + part)
    factor = tl.load(scale)
    tl.store(counts_M + row, count)
    tl.store(bias_grad_M + row, bias * factor)
    _step_number(
        bias_M, bias_first_M, bias_second_M, row, bias * factor, corrections, lr, share, MOMENTUM, ADAM, B1, B2, EPS
    )  # fmt: skip
    p1, p2 = load_row(dec_ME, row, True, E, E1, E2, ONCE=True)
    _step_row(
        dec_ME, dec_first_ME, dec_second_ME, dec_copy_ME, row, p1, p2, dec1 * factor, dec2 * factor,
        corrections, lr, share, MOMENTUM, ADAM, B1, B2, EPS, E, E1, E2, NORMALIZE, NORM_EPS, COPY,
    )  # fmt: skip


@triton.jit
def _encoder_step_kernel(
    order_P, starts_M, first_segment_M, tokens_P, slopes_P, x_ND, part_enc_TD,
    enc_MD, enc_first_MD, enc_second_MD, enc_copy_MD, bias_grad_M, centre_GD,
    scale, corrections, lr, share, num_latents, active,
    SLABS: tl.constexpr, W: tl.constexpr, W1: tl.constexpr, W2: tl.constexpr, UNROLL: tl.constexpr,
    LENGTH: tl.constexpr, HAS_TOKENS: tl.constexpr, ROWS: tl.constexpr, LATENTS: tl.constexpr, CENTRE: tl.constexpr,
    COPY: tl.constexpr, MOMENTUM: tl.constexpr,
    ADAM: tl.constexpr, B1: tl.constexpr, B2: tl.constexpr, EPS: tl.constexpr,
):  # fmt: skip
    """Steps a slab of the encoder's rows of a group."""
    group = tl.program_id(0)
    slab = tl.program_id(1)
    first_latent = group * LATENTS
    factor = tl.load(scale)
    centre1 = tl.zeros((W1,), tl.float32)
    centre2 = tl.zeros((W2 if W2 > 0 else 1,), tl.float32)
    for i in range(tl.minimum(LATENTS, num_latents - first_latent)):
        latent = first_latent + i
        row = latent.to(tl.int64) * SLABS + slab
        first_segment = tl.load(first_segment_M + latent)
        begin, end = entries_of(first_segment, latent, starts_M, first_segment_M, LENGTH)
        enc1, enc2 = sum_encoder(
            begin, end, slab, order_P, tokens_P, slopes_P, x_ND, active, SLABS, W, W1, W2, UNROLL, HAS_TOKENS
        )  # fmt: skip
        for further in range(0, tl.load(first_segment_M + latent + 1) - first_segment - 1, ROWS):
            part = (first_segment - latent + further).to(tl.int64)
            more1, more2 = load_row(part_enc_TD, part * SLABS + slab, True, W, W1, W2)
            enc1 += more1
            enc2 += more2
        p1, p2 = load_row(enc_MD, row, True, W, W1, W2, ONCE=True)
        if CENTRE:
            bias_grad = tl.load(bias_grad_M + latent)
            centre1 -= bias_grad * p1
            centre2 -= bias_grad * p2
        _step_row(
            enc_MD, enc_first_MD, enc_second_MD, enc_copy_MD, row, p1, p2, enc1 * factor, enc2 * factor,
            corrections, lr, share, MOMENTUM, ADAM, B1, B2, EPS, W, W1, W2, False, 0.0, COPY,
        )  # fmt: skip
    if CENTRE:
        store_row(centre_GD, group.to(tl.int64) * SLABS + slab, centre1, centre2, W, W1, W2)


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
    by_latent = sort_by_latent(indices, num_latents)
    tokens, active = (by_latent.order_P, acts.shape[1]) if tokens_P is None else (tokens_P, 1)
    slopes = torch.empty_like(acts, dtype=torch.float32)
    entries = EntryTensors(tokens, acts, grad_NE, x_ND, rows_ME, slopes, active, has_tokens=tokens_P is not None)
    part_dec_TE, part_enc_TD, *part_numbers = further_parts(by_latent, entries, straight_through=straight_through)
    segments = (by_latent.order_P, by_latent.starts_M, by_latent.first_segment_M)
    counts_M, bias_grad_M = torch.empty_like(b_enc.weight, dtype=torch.int32), torch.empty_like(b_enc.weight)
    options = {"LENGTH": SEGMENT, "HAS_TOKENS": entries.has_tokens, "ROWS": COMBINED_ROWS, **_rule_options(rule)}
    _decoder_step_kernel[(num_latents,)](
        *segments, tokens, acts, grad_NE, rows_ME, slopes, part_dec_TE, *part_numbers,
        *_tensors(W_dec), *_tensors(b_enc)[:3], counts_M, bias_grad_M, scale, *_numbers(rule, scale), active,
        **step_launch(decoder_launch(E)), **options, STRAIGHT_THROUGH=straight_through,
        NORMALIZE=normalize, NORM_EPS=NORM_EPS, COPY=W_dec.copy is not None,
    )  # fmt: skip
    launch, num_groups = encoder_launch(x_ND), triton.cdiv(num_latents, _LATENTS)
    centre_GD = torch.empty(num_groups if with_centre else 0, x_ND.shape[1], device=x_ND.device)
    _encoder_step_kernel[(num_groups, launch.SLABS)](
        *segments, tokens, slopes, x_ND, part_enc_TD, *_tensors(W_enc), bias_grad_M, centre_GD,
        scale, *_numbers(rule, scale), num_latents, active,
        **step_launch(launch), **options, LATENTS=_LATENTS, CENTRE=with_centre, COPY=W_enc.copy is not None,
    )  # fmt: skip
    return Updated(counts_M, centre_GD.sum(0) if with_centre else None)


def _rule_options(rule: Signum | Adam) -> dict[str, float | bool]:
    momentum = rule.momentum if isinstance(rule, Signum) else 1.0
    return {"MOMENTUM": momentum, "ADAM": isinstance(rule, Adam), "B1": BETAS[0], "B2": BETAS[1], "EPS": ADAM_EPS}


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
