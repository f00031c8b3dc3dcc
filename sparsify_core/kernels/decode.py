"""The decoder: each token's active rows of W_dec are summed in registers, and compared with the target there.

Legend: N tokens, K active latents per token, M latents, E width; or, where tokens have different numbers of active
latents, P of them in all, one token after the other.
"""

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from sparsify_core.kernels import tuning

_FLOATS = (torch.bfloat16, torch.float32)
UNROLL = 8
"""Rows under way at once. They are independent, and one row's latency is long against its sum."""


@triton.jit
def add_row(
    head, tail, entry, acts_ptr, indices_ptr, table_ptr, E: tl.constexpr, HEAD: tl.constexpr, TAIL: tl.constexpr
):
    row_ptr = table_ptr + tl.load(indices_ptr + entry).to(tl.int64) * E
    act = tl.load(acts_ptr + entry).to(tl.float32)
    head += act * tl.load(row_ptr + tl.arange(0, HEAD)).to(tl.float32)
    if HEAD < E:
        lanes = HEAD + tl.arange(0, TAIL)
        tail += act * tl.load(row_ptr + lanes, mask=lanes < E, other=0).to(tl.float32)
    return head, tail


@triton.jit
def _decode(
    acts_ptr,
    indices_ptr,
    offsets_ptr,
    table_ptr,
    bias_ptr,
    target_ptr,
    out_ptr,
    square_ptr,
    K,
    E: tl.constexpr,
    HEAD: tl.constexpr,
    TAIL: tl.constexpr,
    UNROLL: tl.constexpr,
    LIST: tl.constexpr,
    RESIDUAL: tl.constexpr,
):
    token = tl.program_id(0).to(tl.int64)
    if LIST:
        start = tl.load(offsets_ptr + token).to(tl.int64)
        stop = tl.load(offsets_ptr + token + 1).to(tl.int64)
    else:
        start = token * K
        stop = start + K
    head_lanes = tl.arange(0, HEAD)
    tail_lanes = HEAD + tl.arange(0, TAIL)
    head = tl.load(bias_ptr + head_lanes).to(tl.float32)
    tail = tl.load(bias_ptr + tail_lanes, mask=tail_lanes < E, other=0).to(tl.float32)
    unrolled = stop - (stop - start) % UNROLL
    for first in range(start, unrolled, UNROLL):
        for offset in tl.static_range(UNROLL):
            head, tail = add_row(head, tail, first + offset, acts_ptr, indices_ptr, table_ptr, E, HEAD, TAIL)
    for entry in range(unrolled, stop):
        head, tail = add_row(head, tail, entry, acts_ptr, indices_ptr, table_ptr, E, HEAD, TAIL)
    if RESIDUAL:
        head = tl.load(target_ptr + token * E + head_lanes).to(tl.float32) - head
        tail = tl.load(target_ptr + token * E + tail_lanes, mask=tail_lanes < E, other=0).to(tl.float32) - tail
        tl.store(square_ptr + token, tl.sum(head * head, axis=0) + tl.sum(tail * tail, axis=0))
    tl.store(out_ptr + token * E + head_lanes, head.to(out_ptr.dtype.element_ty))
    if HEAD < E:
        tl.store(out_ptr + token * E + tail_lanes, tail.to(out_ptr.dtype.element_ty), mask=tail_lanes < E)


def decode(
    acts: Tensor,
    indices: Tensor,
    W_dec_ME: Tensor,
    b_dec_E: Tensor,
    *,
    dtype: torch.dtype,
    offsets: Tensor | None = None,
) -> Tensor:
    """out[n] = sum_k acts[n, k] * W_dec[indices[n, k]] + b_dec, summed in fp32 in the order of k.

    Args:
        acts: (N, K), or (P) with `offsets`; bf16 or fp32.
        indices: of the same shape, int32 or int64, below M; not checked, which would wait for the device.
        W_dec_ME: bf16 or fp32, like `b_dec_E`.
        dtype: of the result, bf16 or fp32.
        offsets: (N + 1) int32 or int64: where each token's entries begin, and P.

    Returns:
        (N, E) in `dtype`.

    Raises:
        ValueError: wrong shapes, dtypes or layouts.
    """
    return _launch(acts, indices, W_dec_ME, b_dec_E, None, dtype, offsets)[0]


def decode_residual(
    acts: Tensor,
    indices: Tensor,
    W_dec_ME: Tensor,
    b_dec_E: Tensor,
    target_NE: Tensor,
    *,
    dtype: torch.dtype,
    offsets: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """residual[n] = target[n] - out[n] and square[n] = |residual[n]|^2, with out as in `decode`, which is not stored.

    A skip connection goes into the target: y - x @ W_skip.T.

    Args:
        target_NE: bf16 or fp32, contiguous; the others as in `decode`.
        dtype: of the residual, bf16 or fp32. The squares are those of the residual before it is rounded.

    Returns:
        residual (N, E) in `dtype`, and square (N) fp32.

    Raises:
        ValueError: wrong shapes, dtypes or layouts.
    """
    return _launch(acts, indices, W_dec_ME, b_dec_E, target_NE, dtype, offsets)


def _launch(
    acts: Tensor,
    indices: Tensor,
    W_dec_ME: Tensor,
    b_dec_E: Tensor,
    target_NE: Tensor | None,
    dtype: torch.dtype,
    offsets: Tensor | None,
) -> tuple[Tensor, Tensor]:
    check_decoder(acts, indices, W_dec_ME, b_dec_E, target_NE, offsets)
    tokens = len(acts) if offsets is None else len(offsets) - 1
    width = W_dec_ME.shape[1]
    out = torch.empty(tokens, width, dtype=dtype, device=acts.device)
    square = torch.empty(tokens, dtype=torch.float32, device=acts.device)
    head = 1 << (width.bit_length() - 1)

    def run(launch: tuning.Launch) -> None:
        _decode[(tokens,)](
            acts,
            indices,
            indices if offsets is None else offsets,
            W_dec_ME,
            b_dec_E,
            out if target_NE is None else target_NE,
            out,
            square,
            0 if offsets is not None else acts.shape[1],
            E=width,
            HEAD=head,
            TAIL=triton.next_power_of_2(max(1, width - head)),
            UNROLL=UNROLL,
            LIST=offsets is not None,
            RESIDUAL=target_NE is not None,
            **launch,
        )

    space = launches(tokens, acts.numel(), W_dec_ME.shape, W_dec_ME.dtype)
    # Squares are added across warps: their number may not change from run to run.
    run(tuning.choose(space, acts.device, run) if target_NE is None else space.launches[0])
    return out, square


def launches(tokens: int, entries: int, shape: Sequence[int], dtype: torch.dtype) -> tuning.Space:
    """What `decode` chooses from for `entries` active latents in all and a W_dec of this shape."""
    latents, width = shape
    per_token = tuning.round_up(triton.cdiv(entries, max(tokens, 1)))
    key = f"decode N {tuning.round_up(tokens)} K {per_token} M {latents} E {width} {dtype}"
    return tuning.Space(key, [{"num_warps": number} for number in dict.fromkeys([num_warps(width), 1, 2, 4, 8])])


def num_warps(width: int) -> int:
    """Of a program that holds one row: as few as hold it, for sums across warps cost barriers."""
    return min(8, max(1, (1 << (width.bit_length() - 1)) // 1024))


def check_decoder(
    acts: Tensor,
    indices: Tensor,
    W_dec_ME: Tensor,
    b_dec_E: Tensor,
    target_NE: Tensor | None,
    offsets: Tensor | None,
) -> None:
    """Raise ValueError for what `decode` and its relatives cannot read."""
    _check(acts, indices, offsets)
    tokens, width = len(acts) if offsets is None else len(offsets) - 1, W_dec_ME.shape[1]
    expected = [("W_dec", W_dec_ME, (W_dec_ME.shape[0], width)), ("b_dec", b_dec_E, (width,))]
    if target_NE is not None:
        expected.append(("target", target_NE, (tokens, width)))
    for name, tensor, shape in expected:
        if tensor.shape != shape or tensor.dtype not in _FLOATS or not tensor.is_contiguous():
            raise ValueError(f"need a contiguous bf16 or fp32 {name} {shape}, got {tensor.dtype} {tuple(tensor.shape)}")


def _check(acts: Tensor, indices: Tensor, offsets: Tensor | None) -> None:
    dims = 2 if offsets is None else 1
    if acts.shape != indices.shape or acts.dim() != dims or not (acts.is_contiguous() and indices.is_contiguous()):
        raise ValueError(f"need contiguous acts and indices of one shape, got {acts.shape} and {indices.shape}")
    integers = [indices.dtype] if offsets is None else [indices.dtype, offsets.dtype]
    if acts.dtype not in _FLOATS or not {torch.int32, torch.int64}.issuperset(integers):
        raise ValueError(f"need bf16 or fp32 acts and int32 or int64 indices, got {acts.dtype} and {integers}")
