"""Rows in two pieces against whole rows, in Triton's interpreter where there is no CUDA device."""

import pytest
import torch

pytest.importorskip("triton", reason="Triton exists for Linux only")
import triton
import triton.language as tl

from sparsify_core.kernels.rows import dot, load_row, split_width, store_row


@triton.jit
def _copy(from_ptr, to_ptr, dots_ptr, skipped, WIDTH: tl.constexpr, FIRST: tl.constexpr, SECOND: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    first, second = load_row(from_ptr, row, row != skipped, WIDTH, FIRST, SECOND)
    store_row(to_ptr, row, first, second, WIDTH, FIRST, SECOND)
    tl.store(dots_ptr + row, dot(first, second, first, second))


@pytest.mark.parametrize("width", [1, 2, 3, 64, 65, 96, 100, 576, 768, 1023])
def test_rows_are_copied_whole_and_multiplied(device: torch.device, width: int) -> None:
    """Row 1 is not to be read: zeros stand for it. What lies behind the last row stays."""
    torch.manual_seed(width)
    rows = torch.randn(3, width, device=device)
    memory = torch.full((3 * width + 7,), 5.0, device=device)
    dots = torch.empty(3, device=device)
    _copy[(3,)](rows, memory, dots, 1, width, *split_width(width))
    rows[1] = 0
    assert torch.equal(memory[: 3 * width].view(3, width), rows)
    assert memory[3 * width :].tolist() == [5.0] * 7
    torch.testing.assert_close(dots.double(), rows.double().square().sum(1), rtol=1e-5, atol=1e-6)


def test_pieces_are_powers_of_two_that_cover_the_width() -> None:
    for width in range(1, 2100):
        first, second = split_width(width)
        assert first <= width <= first + second
        assert first & (first - 1) == 0
        assert second & (second - 1) == 0
        assert second <= first
