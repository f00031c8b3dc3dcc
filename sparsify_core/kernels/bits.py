"""Floating point numbers as integers that keep their order: numbers >= 0 compare as their bits do.

On integers the k-th largest of a row is found by one count per bit, exactly and without sorting. An input of a kernel
is passed as the integer view of its memory; -1, below all numbers, stands for "no entry".
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

_INTEGERS = {torch.bfloat16: torch.int16, torch.float32: torch.int32}


def as_bits(values: Tensor) -> Tensor:
    """The memory of contiguous bf16 or fp32 `values` as int16 or int32, for a kernel.

    Raises:
        ValueError: another dtype, or rows that are not contiguous.
    """
    if values.dtype not in _INTEGERS or not values.is_contiguous():
        raise ValueError(f"need contiguous bfloat16 or float32, got {values.dtype} with strides {values.stride()}")
    return values.view(_INTEGERS[values.dtype])


def num_bits(values: Tensor) -> int:
    """Bits of a number without its sign: 15 or 31."""
    return values.element_size() * 8 - 1


@triton.jit
def relu_bits(bits, BITS: tl.constexpr):
    """The bits of max(x, 0) for int32 `bits` of x. Minus zero becomes zero; NaN stays NaN, above all numbers, so that
    it is selected and seen in the loss."""
    INFINITY: tl.constexpr = 0x7F80 if BITS == 15 else 0x7F800000
    magnitude = bits & ((1 << BITS) - 1)
    return tl.where((bits >= 0) | (magnitude > INFINITY), magnitude, 0)


@triton.jit
def count_above(pieces, bound):
    """How many of the numbers in a tuple of equally long tensors are > `bound`."""
    above = (pieces[0] > bound).to(tl.int32)
    for i in tl.static_range(1, len(pieces)):
        above += (pieces[i] > bound).to(tl.int32)
    return tl.sum(above, axis=0)


@triton.jit
def kth_largest(pieces, k, BITS: tl.constexpr):
    """The largest t of which at least k of the int32 bits are >= t: the k-th largest, if k of them are >= 0.

    `pieces` is a tuple of equally long tensors of bits: together they may have a length that is no power of two.
    """
    # It is mostly within a few octaves of the largest: a window of two, doubled until it holds the answer, saves a
    # third of the counts that halving the whole range takes.
    largest = pieces[0]
    for i in tl.static_range(1, len(pieces)):
        largest = tl.maximum(largest, pieces[i])
    high = tl.max(largest, axis=0)
    window = 1 << (BITS - 7)
    low = tl.maximum(high - window, 0)
    while (low > 0) & (count_above(pieces, low - 1) < k):
        high = low - 1
        window = tl.minimum(window, 1 << (BITS - 2)) * 2
        low = tl.maximum(high - window, 0)
    while low < high:
        middle = high - (high - low) // 2
        reached = count_above(pieces, middle - 1) >= k
        low = tl.where(reached, middle, low)
        high = tl.where(reached, high, middle - 1)
    return low


@triton.jit
def place_largest(pieces, threshold, k):
    """Which k of the bits in `pieces` are the largest, ties by lowest position, `threshold` being the k-th largest; and
    how many of them stand before each, as tuples like `pieces`, of fewer than 65,536 numbers together.
    """
    missing = k - count_above(pieces, threshold)
    taken = ()
    ranks = ()
    before = 0
    for i in tl.static_range(len(pieces)):
        above = pieces[i] > threshold
        tied = pieces[i] == threshold
        both = above.to(tl.int32) | (tied.to(tl.int32) << 16)  # one scan for two counts
        counts = before + tl.cumsum(both, axis=0)
        tie_rank = (counts >> 16) & 0xFFFF
        taken += (above | (tied & (tie_rank <= missing)),)
        ranks += ((counts & 0xFFFF) + tl.minimum(tie_rank, missing) - 1,)
        before += tl.sum(both, axis=0)
    return taken, ranks
