"""Two reconstructions of each token in one pass: from the first of its active latents, and from all of them.

Legend: N tokens, K active latents per token, M latents, E width.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from sparsify_core.kernels.decode import add_row, check_decoder, num_warps

_UNROLL = 16
"""Rows under way at once: more than in `decode`, for there are more."""


class Nested(NamedTuple):
    """Residuals of two reconstructions whose squared errors are added up, the second with a weight w.

    residual_NE: target - what the first latents decode to, bfloat16.
    rows_N2E: [n, 0] is residual[n] + w * further[n], which the gradients of the first latents see; [n, 1] is
        w * further[n], which the others see, `further` being the residual from all latents; bfloat16.
    squares_2N: |residual[n]|^2 and |further[n]|^2, float32.
    """

    residual_NE: Tensor
    rows_N2E: Tensor
    squares_2N: Tensor


@triton.jit
def _add_rows(
    head, tail, start, stop, acts_ptr, indices_ptr, table_ptr, E: tl.constexpr, HEAD: tl.constexpr,
    TAIL: tl.constexpr, UNROLL: tl.constexpr,
):  # fmt: skip
    unrolled = stop - (stop - start) % UNROLL
    for entry in range(start, unrolled, UNROLL):
        for offset in tl.static_range(UNROLL):
            head, tail = add_row(head, tail, entry + offset, acts_ptr, indices_ptr, table_ptr, E, HEAD, TAIL)
    for entry in range(unrolled, stop):
        head, tail = add_row(head, tail, entry, acts_ptr, indices_ptr, table_ptr, E, HEAD, TAIL)
    return head, tail


@triton.jit
def _put(ptr, row, head, tail, E: tl.constexpr, HEAD: tl.constexpr, TAIL: tl.constexpr):
    tl.store(ptr + row * E + tl.arange(0, HEAD), head.to(ptr.dtype.element_ty))
    if HEAD < E:
        lanes = HEAD + tl.arange(0, TAIL)
        tl.store(ptr + row * E + lanes, tail.to(ptr.dtype.element_ty), mask=lanes < E)


@triton.jit
def _decode_nested(
    acts_ptr, indices_ptr, table_ptr, bias_ptr, target_ptr, residual_ptr, rows_ptr, squares_ptr, weight, FIRST, K,
    E: tl.constexpr, HEAD: tl.constexpr, TAIL: tl.constexpr, UNROLL: tl.constexpr,
):  # fmt: skip
    token = tl.program_id(0).to(tl.int64)
    start = token * K
    head_lanes = tl.arange(0, HEAD)
    tail_lanes = HEAD + tl.arange(0, TAIL)
    head = tl.load(bias_ptr + head_lanes).to(tl.float32)
    tail = tl.load(bias_ptr + tail_lanes, mask=tail_lanes < E, other=0).to(tl.float32)
    target_head = tl.load(target_ptr + token * E + head_lanes).to(tl.float32)
    target_tail = tl.load(target_ptr + token * E + tail_lanes, mask=tail_lanes < E, other=0).to(tl.float32)
    head, tail = _add_rows(head, tail, start, start + FIRST, acts_ptr, indices_ptr, table_ptr, E, HEAD, TAIL, UNROLL)
    first_head = target_head - head
    first_tail = target_tail - tail
    _put(residual_ptr, token, first_head, first_tail, E, HEAD, TAIL)
    square = tl.sum(first_head * first_head, axis=0) + tl.sum(first_tail * first_tail, axis=0)
    tl.store(squares_ptr + token, square)
    head, tail = _add_rows(
        head, tail, start + FIRST, start + K, acts_ptr, indices_ptr, table_ptr, E, HEAD, TAIL, UNROLL
    )
    head = target_head - head
    tail = target_tail - tail
    square = tl.sum(head * head, axis=0) + tl.sum(tail * tail, axis=0)
    tl.store(squares_ptr + tl.num_programs(0) + token, square)
    head *= weight
    tail *= weight
    _put(rows_ptr, 2 * token, first_head + head, first_tail + tail, E, HEAD, TAIL)
    _put(rows_ptr, 2 * token + 1, head, tail, E, HEAD, TAIL)


def decode_nested(
    acts: Tensor,
    indices: Tensor,
    W_dec_ME: Tensor,
    b_dec_E: Tensor,
    target_NE: Tensor,
    *,
    first: int,
    weight: float,
) -> Nested:
    """What `decode.decode_residual` gives for the `first` columns of `acts` and for all of them, reading each row once.

    Args:
        acts, indices, W_dec_ME, b_dec_E, target_NE: as there, not as lists.
        first: from 1 to K.
        weight: of the error from all latents.

    Raises:
        ValueError: wrong shapes, dtypes or layouts.
    """
    check_decoder(acts, indices, W_dec_ME, b_dec_E, target_NE, None)
    tokens, width = target_NE.shape
    if not 1 <= first <= acts.shape[1]:
        raise ValueError(f"need 1 <= first <= {acts.shape[1]}, got {first}")
    like = {"dtype": torch.bfloat16, "device": acts.device}
    residual_NE, rows_N2E = torch.empty(tokens, width, **like), torch.empty(tokens, 2, width, **like)
    squares_2N = torch.empty(2, tokens, dtype=torch.float32, device=acts.device)
    head = 1 << (width.bit_length() - 1)
    if tokens:
        _decode_nested[(tokens,)](
            acts, indices, W_dec_ME, b_dec_E, target_NE, residual_NE, rows_N2E, squares_2N, weight, first,
            acts.shape[1], E=width, HEAD=head, TAIL=triton.next_power_of_2(max(1, width - head)), UNROLL=_UNROLL,
            num_warps=num_warps(width),
        )  # fmt: skip
    return Nested(residual_NE, rows_N2E, squares_2N)
