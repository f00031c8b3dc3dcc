"""Sums of rows and of their squares around a fixed point, and the centred rows in bfloat16, in one pass over the rows.

Legend: N rows, D width, B blocks of rows. Within a block sums are float32, over the blocks float64: no atomics, so the
same bits in every run.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

_ROWS = 128
"""Rows of a block: long enough that the blocks' sums are few, short enough that float32 loses nothing to speak of."""
_TILE_ROWS = 8
_MAX_COLUMNS = 256


@triton.jit
def _moments(
    y_ptr, shift_ptr, centred_ptr, sum_ptr, square_ptr, N, D,
    ROWS: tl.constexpr, TILE_ROWS: tl.constexpr, COLUMNS: tl.constexpr, CENTRED: tl.constexpr,
):  # fmt: skip
    block = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    shift = tl.load(shift_ptr + columns, mask=columns < D, other=0).to(tl.float32)
    sums = tl.zeros((TILE_ROWS, COLUMNS), tl.float32)
    squares = tl.zeros((TILE_ROWS, COLUMNS), tl.float32)
    for first in range(0, ROWS, TILE_ROWS):
        rows = block * ROWS + first + tl.arange(0, TILE_ROWS)
        cells = rows[:, None] * D + columns[None, :]
        ok = (rows < N)[:, None] & (columns < D)[None, :]
        deviation = tl.load(y_ptr + cells, mask=ok, other=0).to(tl.float32) - shift[None, :]
        deviation = tl.where(ok, deviation, 0.0)
        if CENTRED:
            tl.store(centred_ptr + cells, deviation.to(centred_ptr.dtype.element_ty), mask=ok)
        sums += deviation
        squares += deviation * deviation
    tl.store(sum_ptr + block * D + columns, tl.sum(sums, axis=0), mask=columns < D)
    square = tl.sum(tl.sum(squares, axis=0), axis=0)
    tl.store(square_ptr + block * tl.num_programs(1) + tl.program_id(1), square)


def moments(y_ND: Tensor, shift_D: Tensor) -> tuple[Tensor, Tensor]:
    """sum_n (y_n - shift), float64 (D), and sum_n |y_n - shift|^2, a float64 scalar.

    Args:
        y_ND: bf16 or fp32, contiguous, like `shift_D`.

    Raises:
        ValueError: wrong shapes, dtypes or layouts.
    """
    return _launch(y_ND, shift_D, None)


def centred_moments(y_ND: Tensor, shift_D: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """y - shift (N, D) in bfloat16, and the sums, of the deviations before they are rounded, as `moments` has them."""
    centred_ND = torch.empty_like(y_ND, dtype=torch.bfloat16)
    return centred_ND, *_launch(y_ND, shift_D, centred_ND)


def _launch(y_ND: Tensor, shift_D: Tensor, centred_ND: Tensor | None) -> tuple[Tensor, Tensor]:
    width = shift_D.shape[-1]
    for tensor, shape in ((y_ND, (len(y_ND), width)), (shift_D, (width,))):
        if tensor.shape != shape or tensor.dtype not in (torch.bfloat16, torch.float32) or not tensor.is_contiguous():
            raise ValueError(f"need contiguous bf16 or fp32 {shape}, got {tensor.dtype} {tuple(tensor.shape)}")
    N, D = y_ND.shape
    columns = min(_MAX_COLUMNS, triton.next_power_of_2(D))
    blocks, parts = triton.cdiv(N, _ROWS), triton.cdiv(D, columns)
    sum_BD = torch.empty(blocks, D, dtype=torch.float32, device=y_ND.device)
    square_BP = torch.empty(blocks, parts, dtype=torch.float32, device=y_ND.device)
    if N:
        _moments[(blocks, parts)](
            y_ND, shift_D, y_ND if centred_ND is None else centred_ND, sum_BD, square_BP, N, D,
            ROWS=_ROWS, TILE_ROWS=_TILE_ROWS, COLUMNS=columns, CENTRED=centred_ND is not None, num_warps=4,
        )  # fmt: skip
    return sum_BD.sum(0, dtype=torch.float64), square_BP.sum(dtype=torch.float64)
