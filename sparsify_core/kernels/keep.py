"""Keep the k largest of each row of a dense matrix and drop the rest.

For the AuxK loss: its rows are the dead latents alone, and so many of them are kept that dense products are cheapest.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from sparsify_core.kernels.bits import as_bits, count_above, kth_largest, num_bits, relu_bits
from sparsify_core.kernels.dispatch import MAX_DEAD

_TILE, _MOST_TILES = 1024, 8
"""A program holds so many tiles at most, and tiles of twice the length where they are not enough. The number of dead
latents wanders: each number of tiles is compiled when it is first met, for a second or two, and columns that are not
there cost as much as others."""


@triton.jit(do_not_specialize=["C", "K"])  # the number of dead latents changes step by step
def _keep(pre_ptr, out_ptr, stride, C, K, BITS: tl.constexpr, TILE: tl.constexpr, TILES: tl.constexpr):
    cells = tl.program_id(0).to(tl.int64) * stride
    pieces = ()
    for i in tl.static_range(TILES):
        columns = i * TILE + tl.arange(0, TILE)
        # Masked by the stride, a multiple of 16 in training: by C, numbers would be loaded one by one.
        bits = relu_bits(tl.load(pre_ptr + cells + columns, mask=columns < stride, other=0).to(tl.int32), BITS)
        pieces += (tl.where(columns < C, bits, -1),)
    threshold = kth_largest(pieces, K, BITS)
    num_above = count_above(pieces, threshold)
    if (threshold > 0) & (count_above(pieces, threshold - 1) > K):  # not all of the smallest ones that are equal
        for i in tl.static_range(TILES):
            columns = i * TILE + tl.arange(0, TILE)
            tied = pieces[i] == threshold
            place = num_above + tl.cumsum(tied.to(tl.int32), axis=0)
            kept = tl.where((pieces[i] > threshold) | (tied & (place <= K)), pieces[i], 0)
            tl.store(out_ptr + cells + columns, kept.to(out_ptr.dtype.element_ty), mask=columns < stride)
            num_above += tl.sum(tied.to(tl.int32), axis=0)
    else:
        for i in tl.static_range(TILES):
            columns = i * TILE + tl.arange(0, TILE)
            kept = tl.where(pieces[i] >= threshold, tl.maximum(pieces[i], 0), 0)
            tl.store(out_ptr + cells + columns, kept.to(out_ptr.dtype.element_ty), mask=columns < stride)


def keep_largest(pre_NC: Tensor, k: int, columns: int, *, out: Tensor | None = None) -> Tensor:
    """relu(pre) where it is among the k largest of its row, 0 elsewhere; of equal ones the leftmost count.

    Args:
        pre_NC: bf16 or fp32, contiguous; rows of a multiple of 16 are read faster.
        k: at most `columns`.
        columns: those behind them are padding, which becomes 0.
        out: where the result goes; may be `pre_NC`.

    Returns:
        Of the shape and type of `pre_NC`, without a graph.

    Raises:
        ValueError: more columns than one program holds, or a k that does not fit.
    """
    if not 1 <= k <= columns <= pre_NC.shape[1] <= MAX_DEAD:
        raise ValueError(f"need 1 <= k <= columns <= {MAX_DEAD}, got {k}, {columns} of {pre_NC.shape[1]}")
    out = torch.empty_like(pre_NC) if out is None else out
    tile, tiles = tiling(pre_NC.shape[1])
    _keep[(len(pre_NC),)](
        as_bits(pre_NC),
        as_bits(out),
        pre_NC.shape[1],
        columns,
        k,
        BITS=num_bits(pre_NC),
        TILE=tile,
        TILES=tiles,
        num_warps=num_warps(tile * tiles),
    )
    return out


def tiling(width: int) -> tuple[int, int]:
    """Length and number of the tiles that hold a row."""
    tile = _TILE if width <= _TILE * _MOST_TILES else 2 * _TILE
    return tile, triton.cdiv(width, tile)


def num_warps(entries: int) -> int:
    """The fewest that hold them in registers, up to 64 each: measured, sums across more warps cost more."""
    return 1 if entries <= 1024 else 2 if entries <= 3072 else 4 if entries <= 8192 else 8
