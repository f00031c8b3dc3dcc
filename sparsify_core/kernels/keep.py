"""Keep the k largest of each row of a dense matrix and drop the rest.

For the AuxK loss: its rows are the dead latents alone, and so many of them are kept that dense products are cheapest.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from sparsify_core.kernels.bits import as_bits, num_bits, relu_bits, take_largest
from sparsify_core.kernels.dispatch import MAX_DEAD

_SIZES = (1024, 4096, MAX_DEAD)
"""Entries of a program. Few sizes, because each is compiled for seconds, and the number of dead latents wanders."""


@triton.jit(do_not_specialize=["stride", "C", "K"])  # the number of dead latents changes step by step
def _keep(pre_ptr, out_ptr, stride, C, K, BITS: tl.constexpr, PADDED: tl.constexpr):
    cells = tl.program_id(0).to(tl.int64) * stride
    columns = tl.arange(0, PADDED)
    bits = relu_bits(tl.load(pre_ptr + cells + columns, mask=columns < C, other=0).to(tl.int32), BITS)
    taken = take_largest(tl.where(columns < C, bits, -1), K, BITS)
    kept = tl.where(taken, bits, 0)
    tl.store(out_ptr + cells + columns, kept.to(out_ptr.dtype.element_ty), mask=columns < stride)


def keep_largest(pre_NC: Tensor, k: int, columns: int, *, out: Tensor | None = None) -> Tensor:
    """relu(pre) where it is among the k largest of its row, 0 elsewhere; of equal ones the leftmost count.

    Args:
        pre_NC: bf16 or fp32, contiguous.
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
    padded = next(size for size in _SIZES if size >= pre_NC.shape[1])
    _keep[(len(pre_NC),)](
        as_bits(pre_NC),
        as_bits(out),
        pre_NC.shape[1],
        columns,
        k,
        BITS=num_bits(pre_NC),
        PADDED=padded,
        num_warps=min(16, max(2, padded // 512)),
    )
    return out
