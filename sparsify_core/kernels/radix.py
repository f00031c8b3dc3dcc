"""The largest of very many numbers, exactly, in a fixed order, and without asking the device how many there are.

The n-th largest is found digit by digit from histograms (radix selection); then its place is given to each number that
is above it, and to as many of those equal to it as are missing, lowest place first. Numbers are bits as in `bits`,
at most 2**31 of them.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

_DIGIT_BITS = 8
_TILE = 2048
_HISTOGRAM_PROGRAMS = 1056
"""Enough to fill a large device eight times over; each adds its histogram to the common one only once."""


@triton.jit
def _count_digits(
    bits_ptr, state_ptr, counts_ptr, size, SHIFT: tl.constexpr, DIGIT_BITS: tl.constexpr, TILE: tl.constexpr
):
    prefix = tl.load(state_ptr)
    counts = tl.zeros((1 << DIGIT_BITS,), tl.int32)
    for tile in range(tl.program_id(0), tl.cdiv(size, TILE), tl.num_programs(0)):
        places = tile * TILE + tl.arange(0, TILE).to(tl.int64)
        digits = tl.load(bits_ptr + places, mask=places < size, other=-1).to(tl.int32) >> SHIFT
        counts += tl.histogram(digits & ((1 << DIGIT_BITS) - 1), 1 << DIGIT_BITS, mask=(digits >> DIGIT_BITS) == prefix)
    # Sums of integers do not depend on their order.
    tl.atomic_add(counts_ptr + tl.arange(0, 1 << DIGIT_BITS), counts.to(tl.int64), mask=counts > 0, sem="relaxed")


@triton.jit
def _append_digit(state_ptr, counts_ptr, DIGIT_BITS: tl.constexpr):
    digits = tl.arange(0, 1 << DIGIT_BITS)
    prefix = tl.load(state_ptr)
    missing = tl.load(state_ptr + 1)
    counts = tl.load(counts_ptr + digits)
    reached = tl.cumsum(counts, axis=0, reverse=True)
    digit = tl.max(tl.where(reached >= missing, digits, 0), axis=0)
    tl.store(state_ptr, (prefix << DIGIT_BITS) | digit)
    tl.store(state_ptr + 1, missing - tl.sum(tl.where(digits > digit, counts, 0), axis=0))


@triton.jit
def _load_flags(bits_ptr, state_ptr, size, TILE: tl.constexpr):
    places = tl.program_id(0).to(tl.int64) * TILE + tl.arange(0, TILE)
    bits = tl.load(bits_ptr + places, mask=places < size, other=-1).to(tl.int32)
    threshold = tl.load(state_ptr)
    return places, bits > threshold, bits == threshold


@triton.jit
def _count_flags(bits_ptr, state_ptr, above_ptr, tied_ptr, size, TILE: tl.constexpr):
    _, above, tied = _load_flags(bits_ptr, state_ptr, size, TILE)
    tl.store(above_ptr + tl.program_id(0), tl.sum(above.to(tl.int32), axis=0))
    tl.store(tied_ptr + tl.program_id(0), tl.sum(tied.to(tl.int32), axis=0))


@triton.jit
def _write_places(bits_ptr, state_ptr, above_ptr, tied_ptr, places_ptr, size, TILE: tl.constexpr):
    places, above, tied = _load_flags(bits_ptr, state_ptr, size, TILE)
    missing = tl.load(state_ptr + 1)
    # Both running sums are inclusive, over tiles and within the tile.
    above_before = tl.load(above_ptr + tl.program_id(0)) - tl.sum(above.to(tl.int32), axis=0)
    tied_before = tl.load(tied_ptr + tl.program_id(0)) - tl.sum(tied.to(tl.int32), axis=0)
    above_rank = above_before + tl.cumsum(above.to(tl.int32), axis=0)
    tied_rank = tied_before + tl.cumsum(tied.to(tl.int32), axis=0)
    taken = above | (tied & (tied_rank <= missing))
    rank = above_rank + tl.minimum(tied_rank, missing) - 1
    tl.store(places_ptr + rank, places.to(tl.int32), mask=taken)


def take_largest(bits: Tensor, number: int, num_bits: int) -> tuple[Tensor, Tensor]:
    """The places of the `number` largest of `bits`, equal ones by lowest place.

    Args:
        bits: int16 or int32, contiguous; at least `number` of them >= 0, the others are never taken.
        num_bits: 15 or 31.

    Returns:
        places in the flattened input (number) int32, ascending; and the smallest of the taken bits, an int64 scalar.
    """
    size = bits.numel()
    state = torch.zeros(2, dtype=torch.int64, device=bits.device)  # leading digits found, numbers missing below them
    state[1].fill_(number)
    for shift in range(num_bits // _DIGIT_BITS * _DIGIT_BITS, -1, -_DIGIT_BITS):
        counts = torch.zeros(1 << _DIGIT_BITS, dtype=torch.int64, device=bits.device)
        programs = min(_HISTOGRAM_PROGRAMS, triton.cdiv(size, _TILE))
        _count_digits[(programs,)](bits, state, counts, size, SHIFT=shift, DIGIT_BITS=_DIGIT_BITS, TILE=_TILE)
        _append_digit[(1,)](state, counts, DIGIT_BITS=_DIGIT_BITS, num_warps=1)
    tiles = triton.cdiv(size, _TILE)
    above, tied = (torch.empty(tiles, dtype=torch.int32, device=bits.device) for _ in range(2))
    _count_flags[(tiles,)](bits, state, above, tied, size, TILE=_TILE)
    places = torch.empty(number, dtype=torch.int32, device=bits.device)
    _write_places[(tiles,)](bits, state, above.cumsum(0), tied.cumsum(0), places, size, TILE=_TILE)
    return places, state[0]
