"""A matrix product of which only the cells are kept where another matrix is positive, with the sums of its columns.

Legend: N rows, C columns, E width.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from sparsify_core.kernels.tiles import in_halves, num_programs, tile_at

LAUNCH = {"ROWS": 128, "COLUMNS": 256, "WIDTH": 64, "ROW_TILES": 8, "num_stages": 3, "num_warps": 8}
"""The same for every shape: it decides in which order columns are added. See `encode_gemm` for the meaning."""


@triton.jit
def _put(
    products, mask_desc, out_desc, sums_ptr, first_row, first_column, C, ROWS: tl.constexpr, COLUMNS: tl.constexpr
):
    is_kept = mask_desc.load([first_row, first_column]) > 0
    kept = tl.where(is_kept, products, 0.0)
    out_desc.store([first_row, first_column], kept.to(out_desc.dtype))
    columns = first_column + tl.arange(0, COLUMNS)
    tl.store(sums_ptr + (first_row // ROWS) * C + columns, tl.sum(kept, axis=0), mask=columns < C)


@triton.jit
def _multiply_masked(
    left_desc, right_desc, mask_desc, out_desc, sums_ptr, N, C, E: tl.constexpr, ROWS: tl.constexpr,
    COLUMNS: tl.constexpr, WIDTH: tl.constexpr, ROW_TILES: tl.constexpr, PROGRAMS: tl.constexpr,
):  # fmt: skip
    row_tiles = tl.cdiv(N, ROWS)
    column_tiles = tl.cdiv(C, COLUMNS)
    for tile in tl.range(tl.program_id(0), row_tiles * column_tiles, PROGRAMS, flatten=True):
        row, column = tile_at(tile, row_tiles, column_tiles, ROW_TILES)
        first_row, first_column = row * ROWS, column * COLUMNS
        products = tl.zeros((ROWS, COLUMNS), tl.float32)
        for start in range(0, E, WIDTH):
            left = left_desc.load([first_row, start])
            right = right_desc.load([first_column, start])
            products = tl.dot(left, right.T, products)
        low, high = in_halves(products, ROWS, COLUMNS)
        HALF: tl.constexpr = COLUMNS // 2
        _put(low, mask_desc, out_desc, sums_ptr, first_row, first_column, C, ROWS, HALF)
        _put(high, mask_desc, out_desc, sums_ptr, first_row, first_column + HALF, C, ROWS, HALF)


def multiply_masked(left_NE: Tensor, right_CE: Tensor, mask_NC: Tensor) -> tuple[Tensor, Tensor]:
    """out = left @ right.T where mask > 0, elsewhere 0, summed in float32; and the sums of its columns before rounding.

    Needs a GPU with tensor memory access (Hopper or newer), for which C and E must be multiples of 8.

    Args:
        left_NE, right_CE, mask_NC: bf16 or fp16, all the same, contiguous. Without a GPU only fp16 is right: Triton's
            interpreter does not multiply bf16.

    Returns:
        out (N, C) of the type of the input, and its sums (C) float32.

    Raises:
        ValueError: wrong shapes, dtypes or layouts.
    """
    (rows, width), columns = left_NE.shape, len(right_CE)
    for tensor, shape in ((left_NE, (rows, width)), (right_CE, (columns, width)), (mask_NC, (rows, columns))):
        if tensor.shape != shape or tensor.dtype != left_NE.dtype or not tensor.is_contiguous():
            raise ValueError(f"need contiguous {left_NE.dtype} {shape}, got {tensor.dtype} {tuple(tensor.shape)}")
    if left_NE.dtype not in (torch.bfloat16, torch.float16) or width % 8 or columns % 8:
        raise ValueError(f"need bf16 or fp16 and multiples of 8, got {left_NE.dtype}, {width} and {columns}")
    out_NC = torch.empty_like(mask_NC)
    tile_rows, tile_columns, tile_width = (LAUNCH[name] for name in ("ROWS", "COLUMNS", "WIDTH"))
    row_tiles = triton.cdiv(rows, tile_rows)
    sums_TC = torch.empty(row_tiles, columns, dtype=torch.float32, device=left_NE.device)
    programs = num_programs(left_NE.device)
    half = [tile_rows, tile_columns // 2]
    _multiply_masked[(min(programs, row_tiles * triton.cdiv(columns, tile_columns)),)](
        TensorDescriptor.from_tensor(left_NE, [tile_rows, tile_width]),
        TensorDescriptor.from_tensor(right_CE, [tile_columns, tile_width]),
        TensorDescriptor.from_tensor(mask_NC, half),
        TensorDescriptor.from_tensor(out_NC, half),
        sums_TC,
        rows,
        columns,
        E=width,
        PROGRAMS=programs,
        **LAUNCH,
    )
    return out_NC, sums_TC.sum(0)
