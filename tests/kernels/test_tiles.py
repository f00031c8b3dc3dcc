"""Every tile comes once, in bands; halves are put together again."""

import pytest
import torch

pytest.importorskip("triton", reason="Triton exists for Linux only")

import triton
import triton.language as tl

from sparsify_core.kernels.tiles import in_halves, tile_at


@triton.jit
def _places(out_ptr, row_tiles, column_tiles, HEIGHT):
    tile = tl.program_id(0)
    row, column = tile_at(tile, row_tiles, column_tiles, HEIGHT)
    tl.store(out_ptr + 2 * tile, row)
    tl.store(out_ptr + 2 * tile + 1, column)


@pytest.mark.parametrize(("rows", "columns", "height"), [(1, 1, 4), (5, 3, 2), (4, 2, 4), (3, 7, 16)])
def test_every_tile_once_band_after_band(device: torch.device, rows: int, columns: int, height: int) -> None:
    out = torch.full((rows * columns, 2), -1, dtype=torch.int32, device=device)
    _places[(rows * columns,)](out, rows, columns, height)
    expected = [
        [row, column]
        for first in range(0, rows, height)
        for column in range(columns)
        for row in range(first, min(first + height, rows))
    ]
    assert out.tolist() == expected


@triton.jit
def _split(x_ptr, left_ptr, right_ptr, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    HALF: tl.constexpr = COLUMNS // 2
    rows = tl.arange(0, ROWS)[:, None]
    left, right = in_halves(tl.load(x_ptr + rows * COLUMNS + tl.arange(0, COLUMNS)[None, :]), ROWS, COLUMNS)
    cells = rows * HALF + tl.arange(0, HALF)[None, :]
    tl.store(left_ptr + cells, left)
    tl.store(right_ptr + cells, right)


def test_halves(device: torch.device) -> None:
    x = torch.arange(8 * 16, dtype=torch.float32, device=device).view(8, 16)
    left, right = torch.empty(8, 8, device=device), torch.empty(8, 8, device=device)
    _split[(1,)](x, left, right, 8, 16)
    assert torch.equal(torch.cat([left, right], 1), x)
