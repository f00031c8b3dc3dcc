"""Sums over the entries of one latent against float64."""

import pytest
import torch

pytest.importorskip("triton", reason="Triton exists for Linux only")
import triton
import triton.language as tl

from sparsify_core.kernels.entry_sums import sum_decoder, sum_encoder, sum_parts
from sparsify_core.kernels.rows import split_width, store_row


@triton.jit
def _sum_decoder(
    begin, end, row, order_P, tokens_P, acts_P, grad_NE, W_dec_ME, dec_E, numbers_2, slopes_P, active,
    E: tl.constexpr, E1: tl.constexpr, E2: tl.constexpr,
    UNROLL: tl.constexpr, HAS_TOKENS: tl.constexpr, STRAIGHT_THROUGH: tl.constexpr,
):  # fmt: skip
    dec1, dec2, bias, count = sum_decoder(
        begin, end, row.to(tl.int64), order_P, tokens_P, acts_P, grad_NE, W_dec_ME, slopes_P, active,
        E, E1, E2, UNROLL, HAS_TOKENS, STRAIGHT_THROUGH,
    )  # fmt: skip
    store_row(dec_E, tl.program_id(0).to(tl.int64), dec1, dec2, E, E1, E2)
    tl.store(numbers_2, bias)
    tl.store(numbers_2 + 1, count.to(tl.float32))


@triton.jit
def _sum_encoder(
    begin, end, order_P, tokens_P, slopes_P, x_ND, enc_D, active,
    SLABS: tl.constexpr, W: tl.constexpr, W1: tl.constexpr, W2: tl.constexpr,
    UNROLL: tl.constexpr, HAS_TOKENS: tl.constexpr,
):  # fmt: skip
    slab = tl.program_id(0)
    enc1, enc2 = sum_encoder(
        begin, end, slab, order_P, tokens_P, slopes_P, x_ND, active, SLABS, W, W1, W2, UNROLL, HAS_TOKENS
    )  # fmt: skip
    store_row(enc_D, slab.to(tl.int64), enc1, enc2, W, W1, W2)


@pytest.mark.parametrize("straight_through", [False, True])
@pytest.mark.parametrize("is_list", [False, True])
@pytest.mark.parametrize(("begin", "end"), [(0, 0), (3, 4), (2, 9), (0, 12)])
def test_sums_over_a_range_of_entries(
    begin: int, end: int, is_list: bool, straight_through: bool, device: torch.device
) -> None:
    torch.manual_seed(end)
    N, K, M, D, E = 6, 2, 5, 20, 9
    x, grad, rows = (torch.randn(n, width, device=device) for n, width in ((N, D), (N, E), (M, E)))
    acts = torch.randn(N, K, device=device).relu()  # half of them were cut off
    order = torch.randperm(N * K, device=device)
    tokens = torch.arange(N, device=device).repeat_interleave(K)
    dec, enc, numbers = torch.empty(E, device=device), torch.empty(D, device=device), torch.empty(2, device=device)
    slopes = torch.full((N * K,), 7.0, device=device)
    active = 1 if is_list else K
    _sum_decoder[(1,)](
        begin, end, 3, order, tokens, acts, grad, rows, dec, numbers, slopes, active,
        E, *split_width(E), UNROLL=2, HAS_TOKENS=is_list, STRAIGHT_THROUGH=straight_through,
    )  # fmt: skip
    slabs = 4
    _sum_encoder[(slabs,)](
        begin, end, order, tokens, slopes, x, enc, active,
        slabs, D // slabs, *split_width(D // slabs), UNROLL=2, HAS_TOKENS=is_list,
    )  # fmt: skip
    own = order[begin:end]
    act, g, row = acts.flatten()[own].double(), grad[tokens[own]].double(), x[tokens[own]].double()
    slope = g @ rows[3].double()
    if not straight_through:
        slope = torch.where(act > 0, slope, 0)
    near = {"rtol": 1e-5, "atol": 1e-5}
    torch.testing.assert_close(dec.double(), act @ g, **near)
    torch.testing.assert_close(enc.double(), slope @ row, **near)
    torch.testing.assert_close(numbers.double(), torch.stack([slope.sum(), (act > 0).double().sum()]), **near)
    torch.testing.assert_close(slopes[own].double(), slope, **near)
    assert (slopes == 7).sum() == N * K - (end - begin)


@triton.jit
def _add(part_TW, to_W, slot, end, WIDTH: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    columns = tl.arange(0, COLUMNS)
    tl.store(to_W + columns, sum_parts(slot, end, part_TW, columns, WIDTH, ROWS), mask=columns < WIDTH)


@pytest.mark.parametrize(("slot", "end"), [(0, 1), (1, 4), (2, 12)])
def test_as_many_parts_are_added_as_fit_one_round(slot: int, end: int, device: torch.device) -> None:
    parts, to = torch.randn(12, 5, device=device), torch.empty(5, device=device)
    _add[(1,)](parts, to, slot, end, 5, 4, 8)
    torch.testing.assert_close(to, parts[slot : min(end, slot + 4)].sum(0))
