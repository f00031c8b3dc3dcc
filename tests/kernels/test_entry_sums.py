"""Sums over the entries of one latent against float64."""

import pytest
import torch

pytest.importorskip("triton", reason="Triton exists for Linux only")
import triton
import triton.language as tl

from sparsify_core.kernels.entry_sums import sum_entries, sum_parts
from sparsify_core.kernels.rows import split_width, store_row


@triton.jit
def _sum(
    begin, end, row, order_P, tokens_P, acts_P, grad_NE, x_ND, W_dec_ME, dec_E, enc_D, numbers_2, slopes_P, active,
    E: tl.constexpr, E1: tl.constexpr, E2: tl.constexpr, D: tl.constexpr, D1: tl.constexpr, D2: tl.constexpr,
    UNROLL: tl.constexpr, HAS_TOKENS: tl.constexpr, STRAIGHT_THROUGH: tl.constexpr,
):  # fmt: skip
    dec1, dec2, enc1, enc2, bias, count = sum_entries(
        begin, end, row.to(tl.int64), order_P, tokens_P, acts_P, grad_NE, x_ND, W_dec_ME, slopes_P, active,
        E, E1, E2, D, D1, D2, UNROLL, HAS_TOKENS, STRAIGHT_THROUGH, True,
    )  # fmt: skip
    zero = tl.program_id(0).to(tl.int64)
    store_row(dec_E, zero, dec1, dec2, E, E1, E2)
    store_row(enc_D, zero, enc1, enc2, D, D1, D2)
    tl.store(numbers_2, bias)
    tl.store(numbers_2 + 1, count.to(tl.float32))


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
    _sum[(1,)](
        begin, end, 3, order, tokens, acts, grad, x, rows, dec, enc, numbers, slopes, 1 if is_list else K,
        E, *split_width(E), D, *split_width(D), UNROLL=2, HAS_TOKENS=is_list, STRAIGHT_THROUGH=straight_through,
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
