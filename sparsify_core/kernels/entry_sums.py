"""Sums over the entries of one latent, and over parts of such sums; for use inside Triton kernels.

Legend as in by_latent.py. Sums are in float32 and in a fixed order, the same for all kernels that take them from here.
Decoder and encoder are summed by kernels of their own, so that each needs half of the token rows in the cache and half
of the registers; slopes pass from the first to the second through memory. The encoder's rows may be cut into `SLABS` of
equal width, of which one after the other stays in the cache: slab s of row r is row r * SLABS + s of the same memory.
"""

import triton
import triton.language as tl

from sparsify_core.kernels.rows import dot, load_row


@triton.jit
def entries_of(segment, latent, starts_M, first_segment_M, LENGTH: tl.constexpr):
    """Where the sorted entries of a segment of `latent` begin and end."""
    begin = tl.load(starts_M + latent) + (segment - tl.load(first_segment_M + latent)) * LENGTH
    return begin, tl.minimum(begin + LENGTH, tl.load(starts_M + latent + 1))


@triton.jit
def _load_positions(order_P, i, end, UNROLL: tl.constexpr):
    positions = ()
    for u in tl.static_range(UNROLL):
        positions += (tl.load(order_P + i + u, mask=i + u < end, other=0),)
    return positions


@triton.jit
def _token_of(position, ok, tokens_P, active, HAS_TOKENS: tl.constexpr):
    if HAS_TOKENS:
        token = tl.load(tokens_P + position, mask=ok, other=0).to(tl.int64)
    else:
        token = (position.to(tl.int32) // active).to(tl.int64)
    return token


@triton.jit
def _load_entry(
    position, ok, tokens_P, weights_P, rows_RW, slab, active,
    SLABS: tl.constexpr, W: tl.constexpr, W1: tl.constexpr, W2: tl.constexpr, HAS_TOKENS: tl.constexpr,
    NESTED: tl.constexpr, first,
):  # fmt: skip
    weight = tl.load(weights_P + position, mask=ok, other=0.0).to(tl.float32)
    token = _token_of(position, ok, tokens_P, active, HAS_TOKENS)
    row = token * SLABS + slab
    if NESTED:
        row = 2 * token + (position - token * active >= first).to(tl.int64)
    r1, r2 = load_row(rows_RW, row, ok, W, W1, W2)
    return weight, r1, r2


@triton.jit
def _load_round(
    positions, i, end, tokens_P, weights_P, rows_RW, slab, active,
    SLABS: tl.constexpr, W: tl.constexpr, W1: tl.constexpr, W2: tl.constexpr,
    UNROLL: tl.constexpr, HAS_TOKENS: tl.constexpr, NESTED: tl.constexpr = False, first=0,
):  # fmt: skip
    entries = ()
    for u in tl.static_range(UNROLL):
        entries += (
            _load_entry(
                positions[u], i + u < end, tokens_P, weights_P, rows_RW, slab, active, SLABS, W, W1, W2, HAS_TOKENS,
                NESTED, first,
            ),
        )  # fmt: skip
    return entries


@triton.jit
def sum_decoder(
    begin, end, row, order_P, tokens_P, acts_P, grad_NE, W_dec_ME, slopes_P, active,
    E: tl.constexpr, E1: tl.constexpr, E2: tl.constexpr, UNROLL: tl.constexpr,
    HAS_TOKENS: tl.constexpr, STRAIGHT_THROUGH: tl.constexpr, NESTED: tl.constexpr = False, first=0,
):  # fmt: skip
    """Sums over the sorted entries [begin, end) of the latent `row`: decoder in pieces, bias, count; and their slopes,
    stored where their activations lie.

    NESTED: a token has two gradients, one for the `first` of its entries and one for the others, in `grad_NE` (2N, E).
    """
    w1, w2 = load_row(W_dec_ME, row, begin < end, E, E1, E2, ONCE=True)
    w1 = w1.to(tl.float32)
    w2 = w2.to(tl.float32)
    dec1 = tl.zeros_like(w1)
    dec2 = tl.zeros_like(w2)
    bias = 0.0
    count = 0
    ahead = _load_positions(order_P, begin, end, UNROLL)
    for i in range(begin, end, UNROLL):
        # All loads of a round, and where the next one finds its rows, are issued before the first sum needs one.
        positions = ahead
        entries = _load_round(
            positions, i, end, tokens_P, acts_P, grad_NE, 0, active, 1, E, E1, E2, UNROLL, HAS_TOKENS,
            NESTED, first,
        )  # fmt: skip
        ahead = _load_positions(order_P, i + UNROLL, end, UNROLL)
        for u in tl.static_range(UNROLL):
            act, g1, g2 = entries[u]
            g1 = g1.to(tl.float32)
            g2 = g2.to(tl.float32)
            slope = dot(g1, g2, w1, w2)
            if not STRAIGHT_THROUGH:
                slope = tl.where(act > 0, slope, 0.0)
            tl.store(slopes_P + positions[u], slope, mask=i + u < end)
            dec1 += act * g1
            dec2 += act * g2
            bias += slope
            count += (act > 0).to(tl.int32)
    return dec1, dec2, bias, count


@triton.jit
def sum_encoder(
    begin, end, slab, order_P, tokens_P, slopes_P, x_ND, active,
    SLABS: tl.constexpr, W: tl.constexpr, W1: tl.constexpr, W2: tl.constexpr,
    UNROLL: tl.constexpr, HAS_TOKENS: tl.constexpr,
):  # fmt: skip
    """One slab, W wide, of the encoder's sum over the sorted entries [begin, end), whose slopes are known."""
    enc1 = tl.zeros((W1,), tl.float32)
    enc2 = tl.zeros((W2 if W2 > 0 else 1,), tl.float32)
    ahead = _load_positions(order_P, begin, end, UNROLL)
    for i in range(begin, end, UNROLL):
        positions = ahead
        entries = _load_round(
            positions, i, end, tokens_P, slopes_P, x_ND, slab, active, SLABS, W, W1, W2, UNROLL, HAS_TOKENS
        )  # fmt: skip
        ahead = _load_positions(order_P, i + UNROLL, end, UNROLL)
        for u in tl.static_range(UNROLL):
            slope, x1, x2 = entries[u]
            enc1 += slope * x1.to(tl.float32)
            enc2 += slope * x2.to(tl.float32)
    return enc1, enc2


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
