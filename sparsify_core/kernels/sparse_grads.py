"""All gradients of a sparse coder's weights in one pass over its active latents, in Triton.

Legend as in by_latent.py; D width of the encoder's input, E of the reconstruction.
One program per segment reads each of its tokens' rows once and keeps four rows in registers: the decoder row, the sums
for the decoder and the encoder, and what it has just read. Sums are in float32 and in a fixed order: no atomics.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from sparsify_core.kernels.by_latent import SEGMENT, ByLatent, sort_by_latent
from sparsify_core.kernels.entry_sums import sum_entries, sum_parts
from sparsify_core.kernels.reference import SparseGradients
from sparsify_core.kernels.rows import load_row, split_width, store_row

_BLOCK_BYTES = 64 * 2**20
"""Of token rows (x and gradient) that stay in the L2 cache while latent after latent asks for them."""
_NESTED_BLOCK_BYTES = 32 * 2**20
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
def _segment_kernel(
    order_P, starts_M, first_segment_M, latent_S, tokens_P, acts_P, grad_NE, x_ND, W_dec_ME,
    to_dec_ME, to_enc_MD, to_bias_M, to_counts_M, part_dec_TE, part_enc_TD, part_bias_T, part_counts_T, to_acts_P,
    scale, num_latents, active, first,
    E: tl.constexpr, E1: tl.constexpr, E2: tl.constexpr, D: tl.constexpr, D1: tl.constexpr, D2: tl.constexpr,
    LENGTH: tl.constexpr, UNROLL: tl.constexpr, HAS_TOKENS: tl.constexpr, STRAIGHT_THROUGH: tl.constexpr,
    ACCUMULATE: tl.constexpr, WITH_ACTS: tl.constexpr, NESTED: tl.constexpr,
):  # fmt: skip
    segment = tl.program_id(0)
    latent = tl.load(latent_S + segment)
    if latent < num_latents:
        row = latent.to(tl.int64)
        first_segment = tl.load(first_segment_M + latent)
        begin = tl.load(starts_M + latent) + (segment - first_segment) * LENGTH
        end = tl.minimum(begin + LENGTH, tl.load(starts_M + latent + 1))
        dec1, dec2, enc1, enc2, bias, count = sum_entries(
            begin, end, row, order_P, tokens_P, acts_P, grad_NE, x_ND, W_dec_ME, to_acts_P, active,
            E, E1, E2, D, D1, D2, UNROLL, HAS_TOKENS, STRAIGHT_THROUGH, WITH_ACTS, NESTED, first,
        )  # fmt: skip
        factor = tl.load(scale)
        dec1 *= factor
        dec2 *= factor
        enc1 *= factor
        enc2 *= factor
        bias *= factor
        if segment == first_segment:
            if begin < end or not ACCUMULATE:
                _put_row(to_dec_ME, row, dec1, dec2, E, E1, E2, ACCUMULATE)
                _put_row(to_enc_MD, row, enc1, enc2, D, D1, D2, ACCUMULATE)
                if ACCUMULATE:
                    bias += tl.load(to_bias_M + row)
                    count += tl.load(to_counts_M + row)
                tl.store(to_bias_M + row, bias)
                tl.store(to_counts_M + row, count)
        else:
            part = (segment - latent - 1).to(tl.int64)
            _put_row(part_dec_TE, part, dec1, dec2, E, E1, E2, False)
            _put_row(part_enc_TD, part, enc1, enc2, D, D1, D2, False)
            tl.store(part_bias_T + part, bias)
            tl.store(part_counts_T + part, count)


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
    to = to._replace(acts=torch.empty_like(acts, dtype=torch.float32) if with_acts else None)
    scale = torch.ones((), device=x_ND.device) if scale is None else scale
    block = len(x_ND) if tokens_P is not None else _tokens_per_block(x_ND, grad_NE, first)
    for begin in range(0, max(len(x_ND), 1), max(block, 1)):
        own = slice(begin, begin + block) if tokens_P is None else slice(None)
        _add_block(
            x_ND[begin : begin + block],
            grad_NE[begin : begin + block],
            acts[own],
            sort_by_latent(indices[own], num_latents),
            W_dec_ME,
            to._replace(acts=None if to.acts is None else to.acts[own]),
            tokens_P=tokens_P,
            straight_through=straight_through,
            scale=scale,
            first=first,
            accumulate=begin > 0,
        )
    return to


def _add_block(
    x_ND: Tensor,
    grad_NE: Tensor,
    acts: Tensor,
    entries: ByLatent,
    W_dec_ME: Tensor,
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
    num_warps, unroll = launch_shape(max(D, E))
    _segment_kernel[(len(entries.latent_S),)](
        entries.order_P, entries.starts_M, entries.first_segment_M, entries.latent_S,
        entries.order_P if tokens_P is None else tokens_P, acts, grad_NE, x_ND, W_dec_ME,
        to.W_dec_ME, to.W_enc_MD, to.b_enc_M, to.counts_M, part_dec_TE, part_enc_TD, part_bias_T, part_counts_T,
        to.b_enc_M if to.acts is None else to.acts, scale, num_latents, 1 if tokens_P is not None else acts.shape[1],
        0 if first is None else first, E, *split_width(E), D, *split_width(D), LENGTH=SEGMENT, UNROLL=unroll,
        HAS_TOKENS=tokens_P is not None, STRAIGHT_THROUGH=straight_through, ACCUMULATE=accumulate,
        WITH_ACTS=to.acts is not None, NESTED=first is not None, num_warps=num_warps,
    )  # fmt: skip
    if num_parts:
        columns = min(MAX_COMBINED_COLUMNS, triton.next_power_of_2(max(D, E)))
        _combine_kernel[(num_parts, triton.cdiv(max(D, E), columns))](
            entries.latent_T, entries.first_segment_M, part_dec_TE, part_enc_TD, part_bias_T, part_counts_T,
            to.W_dec_ME, to.W_enc_MD, to.b_enc_M, to.counts_M, num_latents,
            E, D, ROWS=COMBINED_ROWS, COLUMNS=columns, num_warps=4,
        )  # fmt: skip


def launch_shape(width: int) -> tuple[int, int]:
    """(warps, entries read at a time) of a program: one warp while its rows fit; sums across warps cost barriers."""
    if width <= 1024:
        return 1, 2
    return (4, 1) if width <= 2048 else (8, 1)


def _tokens_per_block(x_ND: Tensor, grad_NE: Tensor, first: int | None) -> int:
    if max(x_ND.shape[1], grad_NE.shape[-1]) > _MAX_BLOCKED_WIDTH:
        return len(x_ND)
    row_bytes = sum(t[:1].numel() * t.element_size() for t in (x_ND, grad_NE))
    num_blocks = triton.cdiv(len(x_ND) * row_bytes, _BLOCK_BYTES if first is None else _NESTED_BLOCK_BYTES)
    return triton.cdiv(len(x_ND), max(num_blocks, 1))


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
