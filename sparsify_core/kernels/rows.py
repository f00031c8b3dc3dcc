"""Rows of a width that is no power of two, as two pieces that are: 576 = 512 + 64 wastes nothing, one of 1,024 would.

For use inside Triton kernels. The second piece is one zero where the width is a power of two.
"""

import triton
import triton.language as tl


def split_width(width: int) -> tuple[int, int]:
    """(first, second): powers of two that together cover `width`; second is 0 where the first does alone."""
    first = 1 << (width.bit_length() - 1)
    rest = width - first
    return first, triton.next_power_of_2(rest) if rest else 0


@triton.jit
def load_row(
    ptr, row, ok, WIDTH: tl.constexpr, FIRST: tl.constexpr, SECOND: tl.constexpr, ONCE: tl.constexpr = False
):  # fmt: skip
    """Both pieces of a row, in the stored type; zeros unless the scalar `ok`. `row` must be 64 bits wide.

    A row that is wanted `ONCE` leaves the caches before others.
    """
    POLICY: tl.constexpr = "evict_first" if ONCE else ""
    low = tl.arange(0, FIRST)
    first = tl.load(ptr + row * WIDTH + low, mask=ok, other=0.0, eviction_policy=POLICY)
    if SECOND > 0:
        high = FIRST + tl.arange(0, SECOND)
        second = tl.load(ptr + row * WIDTH + high, mask=ok & (high < WIDTH), other=0.0, eviction_policy=POLICY)
    else:
        second = tl.zeros((1,), ptr.dtype.element_ty)
    return first, second


@triton.jit
def store_row(
    ptr, row, first, second, WIDTH: tl.constexpr, FIRST: tl.constexpr, SECOND: tl.constexpr, ONCE: tl.constexpr = False
):  # fmt: skip
    """Write both pieces of a row, in the type of the table."""
    POLICY: tl.constexpr = "evict_first" if ONCE else ""
    tl.store(ptr + row * WIDTH + tl.arange(0, FIRST), first.to(ptr.dtype.element_ty), eviction_policy=POLICY)
    if SECOND > 0:
        high = FIRST + tl.arange(0, SECOND)
        cells = ptr + row * WIDTH + high
        tl.store(cells, second.to(ptr.dtype.element_ty), mask=high < WIDTH, eviction_policy=POLICY)


@triton.jit
def dot(a_first, a_second, b_first, b_second):
    """Inner product of two rows in pieces, a scalar."""
    return tl.sum(a_first * b_first, axis=0) + tl.sum(a_second * b_second, axis=0)
