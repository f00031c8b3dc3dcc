"""All gradients of a sparse coder's weights in two passes over its active latents, in Triton.

Legend as in by_latent.py; D width of the encoder's input, E of the reconstruction.
One program per segment, and per slab of the encoder. The first pass, over the decoder, finds the slopes that the second
one needs. Sums are in float32 and in a fixed order: no atomics.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from sparsify_core.kernels.by_latent import SEGMENT, ByLatent, sort_by_latent
from sparsify_core.kernels.entry_launches import decoder_launch, encoder_launch
from sparsify_core.kernels.entry_sums import entries_of, sum_decoder, sum_encoder, sum_parts
from sparsify_core.kernels.reference import SparseGradients
from sparsify_core.kernels.rows import load_row, store_row

_BLOCK_BYTES = 64 * 2**20
"""Of the gradient's token rows that stay in the L2 cache while latent after latent asks for them."""
_NESTED_BLOCK_BYTES = 24 * 2**20
"""The same with two gradients: these latents are so many that further visits of the gradients cost less than misses."""
_MAX_BLOCKED_WIDTH = 1024
"""Wider rows are read too few times each: measured, further visits of the gradients then cost more than they save."""
COMBINED_ROWS = 8
MAX_COMBINED_COLUMNS = 256


@triton.jit
def _put_row(
    ptr, row, first, second, WIDTH: tl.constexpr, FIRST: tl.constexpr, SECOND: tl.constexpr, ADD: tl.constexpr
):
    if ADD:
        old_first, old_second = load_row(ptr, row, True, WIDTH, FIRST, SECOND)
        first += old_first
        second += old_second
    store_row(ptr, row, first, second, WIDTH, FIRST, SECOND)


@triton.jit
def _decoder_kernel(
    order_P, starts_M, first_segment_M, latent_S, tokens_P, acts_P, grad_NE, W_dec_ME, slopes_P,
    to_dec_ME, to_bias_M, to_counts_M, part_dec_TE, part_bias_T, part_counts_T, scale, num_latents, active, first,
    E: tl.constexpr, E1: tl.constexpr, E2: tl.constexpr, UNROLL: tl.constexpr,
    LENGTH: tl.constexpr, HAS_TOKENS: tl.constexpr, STRAIGHT_THROUGH: tl.constexpr, ACCUMULATE: tl.constexpr,
    NESTED: tl.constexpr,
):  # fmt: skip
    segment = tl.program_id(0)
    latent = tl.load(latent_S + segment)
    if latent < num_latents:
        row = latent.to(tl.int64)
        begin, end = entries_of(segment, latent, starts_M, first_segment_M, LENGTH)
        dec1, dec2, bias, count = sum_decoder(
            begin, end, row, order_P, tokens_P, acts_P, grad_NE, W_dec_ME, slopes_P, active,
            E, E1, E2, UNROLL, HAS_TOKENS, STRAIGHT_THROUGH, NESTED, first,
        )  # fmt: skip
        factor = tl.load(scale)
        dec1 *= factor
        dec2 *= factor
        bias *= factor
        if segment == tl.load(first_segment_M + latent):
            if begin < end or not ACCUMULATE:
                _put_row(to_dec_ME, row, dec1, dec2, E, E1, E2, ACCUMULATE)
                if ACCUMULATE:
                    bias += tl.load(to_bias_M + row)
                    count += tl.load(to_counts_M + row)
                tl.store(to_bias_M + row, bias)
                tl.store(to_counts_M + row, count)
        else:
            part = (segment - latent - 1).to(tl.int64)
            store_row(part_dec_TE, part, dec1, dec2, E, E1, E2)
            tl.store(part_bias_T + part, bias)
            tl.store(part_counts_T + part, count)


@triton.jit
def _encoder_kernel(
    order_P, starts_M, first_segment_M, latent_S, tokens_P, slopes_P, x_ND, to_enc_MD, part_enc_TD,
    scale, num_latents, active,
    SLABS: tl.constexpr, W: tl.constexpr, W1: tl.constexpr, W2: tl.constexpr, UNROLL: tl.constexpr,
    LENGTH: tl.constexpr, HAS_TOKENS: tl.constexpr, ACCUMULATE: tl.constexpr,
):  # fmt: skip
    segment = tl.program_id(0)
    slab = tl.program_id(1)
    latent = tl.load(latent_S + segment)
    if latent < num_latents:
        begin, end = entries_of(segment, latent, starts_M, first_segment_M, LENGTH)
        enc1, enc2 = sum_encoder(
            begin, end, slab, order_P, tokens_P, slopes_P, x_ND, active, SLABS, W, W1, W2, UNROLL, HAS_TOKENS
        )  # fmt: skip
        factor = tl.load(scale)
        enc1 *= factor
        enc2 *= factor
        if segment == tl.load(first_segment_M + latent):
            if begin < end or not ACCUMULATE:
                _put_row(to_enc_MD, latent.to(tl.int64) * SLABS + slab, enc1, enc2, W, W1, W2, ACCUMULATE)
        else:
            part = (segment - latent - 1).to(tl.int64)
            store_row(part_enc_TD, part * SLABS + slab, enc1, enc2, W, W1, W2)


@triton.jit
def _add_parts(
    slot, end, row, part_TW, to_MW, columns, WIDTH: tl.constexpr, ROWS: tl.constexpr
):  # fmt: skip
    ok = columns < WIDTH
    total = tl.load(to_MW + row * WIDTH + columns, mask=ok, other=0.0)
    for first in range(slot, end, ROWS):
        total += sum_parts(first, end, part_TW, columns, WIDTH, ROWS)
    tl.store(to_MW + row * WIDTH + columns, total, mask=ok)


@triton.jit
def _combine_kernel(
    latent_T, first_segment_M, part_dec_TE, part_enc_TD, part_bias_T, part_counts_T,
    to_dec_ME, to_enc_MD, to_bias_M, to_counts_M, num_latents,
    E: tl.constexpr, D: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Add what a latent's further segments found to what its first one wrote; one program per part and columns, of
    which those of the first part do the work.
    """
    slot = tl.program_id(0)
    latent = tl.load(latent_T + slot)
    if latent < num_latents and slot == tl.load(first_segment_M + latent) - latent:
        end = tl.load(first_segment_M + latent + 1) - latent - 1
        row = latent.to(tl.int64)
        block = tl.program_id(1)
        columns = block * COLUMNS + tl.arange(0, COLUMNS)
        _add_parts(slot, end, row, part_dec_TE, to_dec_ME, columns, E, ROWS)
        _add_parts(slot, end, row, part_enc_TD, to_enc_MD, columns, D, ROWS)
        if block == 0:
            only = tl.arange(0, 1)
            _add_parts(slot, end, row, part_bias_T, to_bias_M, only, 1, ROWS)
            _add_parts(slot, end, row, part_counts_T, to_counts_M, only, 1, ROWS)


def sparse_gradients(
    x_ND: Tensor,
    grad_NE: Tensor,
    acts: Tensor,
    indices: Tensor,
    W_dec_ME: Tensor,
    *,
    tokens_P: Tensor | None = None,
    straight_through: bool = False,
    with_acts: bool = False,
    scale: Tensor | None = None,
    first: int | None = None,
) -> SparseGradients:
    """The same as reference.sparse_gradients, bit for bit equal in every run.

    Args:
        first: of the K latents of a token so many see the gradient grad[n, 0] and the others grad[n, 1] of a `grad_NE`
            of shape (N, 2, E); None: all see grad[n].
        scale: float32 scalar on the device that multiplies the gradients of the weights; None is 1.
        x_ND, grad_NE, acts, W_dec_ME: bfloat16 or float32, contiguous, on one device.
        indices: int32 or int64 in [0, M).

    Raises:
        ValueError: shapes, types or devices that do not fit, or a table that is not contiguous.
    """
    check_entries(x_ND, grad_NE, acts, indices, W_dec_ME, tokens_P)
    if grad_NE.dim() != (2 if first is None else 3) or (first is not None and tokens_P is not None):
        raise ValueError(
            f"got a gradient {tuple(grad_NE.shape)} with first = {first}: pass (N, E), or (N, 2, E) with it"
        )
    num_latents = len(W_dec_ME)
    to = _empty_gradients(x_ND, W_dec_ME)
    slopes = torch.empty_like(acts, dtype=torch.float32)
    scale = torch.ones((), device=x_ND.device) if scale is None else scale
    block = len(x_ND) if tokens_P is not None else _tokens_per_block(grad_NE, first)
    for begin in range(0, max(len(x_ND), 1), max(block, 1)):
        own = slice(begin, begin + block) if tokens_P is None else slice(None)
        _add_block(
            x_ND[begin : begin + block],
            grad_NE[begin : begin + block],
            acts[own],
            sort_by_latent(indices[own], num_latents),
            W_dec_ME,
            slopes[own],
            to,
            tokens_P=tokens_P,
            straight_through=straight_through,
            scale=scale,
            first=first,
            accumulate=begin > 0,
        )
    return to._replace(acts=slopes if with_acts else None)


def _add_block(
    x_ND: Tensor,
    grad_NE: Tensor,
    acts: Tensor,
    entries: ByLatent,
    W_dec_ME: Tensor,
    slopes: Tensor,
    to: SparseGradients,
    *,
    tokens_P: Tensor | None,
    straight_through: bool,
    scale: Tensor,
    first: int | None,
    accumulate: bool,
) -> None:
    num_latents, E = W_dec_ME.shape
    D = x_ND.shape[1]
    num_parts = len(entries.latent_T)
    part_dec_TE, part_enc_TD = to.W_dec_ME.new_empty(num_parts, E), to.W_enc_MD.new_empty(num_parts, D)
    part_bias_T, part_counts_T = to.b_enc_M.new_empty(num_parts), to.counts_M.new_empty(num_parts)
    segments = (entries.order_P, entries.starts_M, entries.first_segment_M, entries.latent_S)
    tokens, active = (entries.order_P, acts.shape[1]) if tokens_P is None else (tokens_P, 1)
    options = {"LENGTH": SEGMENT, "HAS_TOKENS": tokens_P is not None, "ACCUMULATE": accumulate}
    _decoder_kernel[(len(entries.latent_S),)](
        *segments, tokens, acts, grad_NE, W_dec_ME, slopes, to.W_dec_ME, to.b_enc_M, to.counts_M,
        part_dec_TE, part_bias_T, part_counts_T, scale, num_latents, active, first or 0,
        **decoder_launch(E)._asdict(), **options, STRAIGHT_THROUGH=straight_through, NESTED=first is not None,
    )  # fmt: skip
    launch = encoder_launch(x_ND)
    _encoder_kernel[(len(entries.latent_S), launch.SLABS)](
        *segments, tokens, slopes, x_ND, to.W_enc_MD, part_enc_TD, scale, num_latents, active,
        **launch._asdict(), **options,
    )  # fmt: skip
    if num_parts:
        columns = min(MAX_COMBINED_COLUMNS, triton.next_power_of_2(max(D, E)))
        _combine_kernel[(num_parts, triton.cdiv(max(D, E), columns))](
            entries.latent_T, entries.first_segment_M, part_dec_TE, part_enc_TD, part_bias_T, part_counts_T,
            to.W_dec_ME, to.W_enc_MD, to.b_enc_M, to.counts_M, num_latents,
            E, D, ROWS=COMBINED_ROWS, COLUMNS=columns, num_warps=4,
        )  # fmt: skip


def _tokens_per_block(grad_NE: Tensor, first: int | None) -> int:
    if grad_NE.shape[-1] > _MAX_BLOCKED_WIDTH:
        return len(grad_NE)
    num_blocks = triton.cdiv(
        grad_NE.numel() * grad_NE.element_size(), _BLOCK_BYTES if first is None else _NESTED_BLOCK_BYTES
    )
    return triton.cdiv(len(grad_NE), max(num_blocks, 1))


def _empty_gradients(x_ND: Tensor, W_dec_ME: Tensor) -> SparseGradients:
    num_latents, E = W_dec_ME.shape
    like = {"dtype": torch.float32, "device": W_dec_ME.device}
    return SparseGradients(
        torch.empty(num_latents, E, **like),
        torch.empty(num_latents, x_ND.shape[1], **like),
        torch.empty(num_latents, **like),
        torch.empty(num_latents, dtype=torch.int32, device=W_dec_ME.device),
    )


def check_entries(
    x_ND: Tensor, grad_NE: Tensor, acts: Tensor, indices: Tensor, W_dec_ME: Tensor, tokens_P: Tensor | None
) -> None:
    if len(x_ND) != len(grad_NE) or grad_NE.shape[-1] != W_dec_ME.shape[1]:
        shapes = [tuple(t.shape) for t in (x_ND, grad_NE, W_dec_ME)]
        raise ValueError(f"x, gradient and W_dec have the shapes {shapes}: pass (N, D), (N, E) and (M, E)")
    entries = (len(x_ND), *acts.shape[1:]) if tokens_P is None else tokens_P.shape
    if not acts.shape == indices.shape == torch.Size(entries) or acts.dim() != (2 if tokens_P is None else 1):
        shapes = [tuple(t.shape) for t in (acts, indices)]
        raise ValueError(f"activations and indices have the shapes {shapes}: pass (N, K) both, or (P) with tokens")
    _check_layout([x_ND, grad_NE, acts, W_dec_ME], [torch.float32, torch.bfloat16])
    _check_layout([indices, *([] if tokens_P is None else [tokens_P])], [torch.int32, torch.int64])


def _check_layout(tensors: list[Tensor], dtypes: list[torch.dtype]) -> None:
    for tensor in tensors:
        if tensor.dtype not in dtypes or not tensor.is_contiguous():
            raise ValueError(f"got {tensor.dtype} with strides {tensor.stride()}: pass a contiguous one of {dtypes}")
