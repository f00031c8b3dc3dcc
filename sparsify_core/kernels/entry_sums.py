"""Sums over the entries of one latent, and over parts of such sums; for use inside Triton kernels.

Legend as in by_latent.py. Sums are in float32 and in a fixed order, the same for all kernels that take them from here.
"""

import triton
import triton.language as tl

from sparsify_core.kernels.rows import dot, load_row


@triton.jit
def _load_positions(order_P, i, end, UNROLL: tl.constexpr):
    positions = ()
    for u in tl.static_range(UNROLL):
        positions += (tl.load(order_P + i + u, mask=i + u < end, other=0),)
    return positions


@triton.jit
def _load_entry(
    position, ok, tokens_P, acts_P, grad_NE, x_ND, active, first,
    E: tl.constexpr, E1: tl.constexpr, E2: tl.constexpr, D: tl.constexpr, D1: tl.constexpr, D2: tl.constexpr,
    HAS_TOKENS: tl.constexpr, NESTED: tl.constexpr,
):  # fmt: skip
    if HAS_TOKENS:
        token = tl.load(tokens_P + position, mask=ok, other=0).to(tl.int64)
    else:
        token = (position.to(tl.int32) // active).to(tl.int64)
    act = tl.load(acts_P + position, mask=ok, other=0.0).to(tl.float32)
    grad_row = token
    if NESTED:
        grad_row = 2 * token + (position - token * active >= first).to(tl.int64)
    g1, g2 = load_row(grad_NE, grad_row, ok, E, E1, E2)
    x1, x2 = load_row(x_ND, token, ok, D, D1, D2)
    return act, g1, g2, x1, x2


@triton.jit
def sum_entries(
    begin, end, row, order_P, tokens_P, acts_P, grad_NE, x_ND, W_dec_ME, to_acts_P, active,
    E: tl.constexpr, E1: tl.constexpr, E2: tl.constexpr, D: tl.constexpr, D1: tl.constexpr, D2: tl.constexpr,
    UNROLL: tl.constexpr, HAS_TOKENS: tl.constexpr, STRAIGHT_THROUGH: tl.constexpr, WITH_ACTS: tl.constexpr,
    NESTED: tl.constexpr = False, first=0,
):  # fmt: skip
    """Sums over the sorted entries [begin, end) of the latent `row`: decoder and encoder in pieces, bias, count.

    NESTED: a token has two gradients, one for the `first` of its entries and one for the others, in `grad_NE` (2N, E).
    """
    w1, w2 = load_row(W_dec_ME, row, begin < end, E, E1, E2)
    w1 = w1.to(tl.float32)
    w2 = w2.to(tl.float32)
    dec1 = tl.zeros_like(w1)
    dec2 = tl.zeros_like(w2)
    enc1 = tl.zeros((D1,), tl.float32)
    enc2 = tl.zeros((D2 if D2 > 0 else 1,), tl.float32)
    bias = 0.0
    count = 0
    ahead = _load_positions(order_P, begin, end, UNROLL)
    for i in range(begin, end, UNROLL):
        # All loads of a round, and where the next one finds its rows, are issued before the first sum needs one.
        positions = ahead
        entries = ()
        for u in tl.static_range(UNROLL):
            entries += (
                _load_entry(
                    positions[u], i + u < end, tokens_P, acts_P, grad_NE, x_ND, active, first,
                    E, E1, E2, D, D1, D2, HAS_TOKENS, NESTED,
                ),
            )  # fmt: skip
        ahead = _load_positions(order_P, i + UNROLL, end, UNROLL)
        for u in tl.static_range(UNROLL):
            act, g1, g2, x1, x2 = entries[u]
            g1 = g1.to(tl.float32)
            g2 = g2.to(tl.float32)
            slope = dot(g1, g2, w1, w2)
            if not STRAIGHT_THROUGH:
                slope = tl.where(act > 0, slope, 0.0)
            if WITH_ACTS:
                tl.store(to_acts_P + positions[u], slope, mask=i + u < end)
            dec1 += act * g1
            dec2 += act * g2
            enc1 += slope * x1.to(tl.float32)
            enc2 += slope * x2.to(tl.float32)
            bias += slope
            count += (act > 0).to(tl.int32)
    return dec1, dec2, enc1, enc2, bias, count


@triton.jit
def sum_parts(first, end, part_TW, columns, WIDTH: tl.constexpr, ROWS: tl.constexpr):
    """Columns of the sum of the parts [first, first + ROWS), of those before `end`."""
    rows = first + tl.arange(0, ROWS)
    part = tl.load(
        part_TW + rows.to(tl.int64)[:, None] * WIDTH + columns[None, :],
        mask=(rows < end)[:, None] & (columns < WIDTH)[None, :],
        other=0.0,
    )
    return tl.sum(part, axis=0)
