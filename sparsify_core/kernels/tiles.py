"""What matrix products by tiles have in common: programs that go from tile to tile in an order that suits the cache."""

import torch
import triton
import triton.language as tl

_PROGRAMS = 132
"""Where there is no GPU: an H100's."""


@triton.jit
def tile_at(tile, row_tiles, column_tiles, HEIGHT):
    """Row and column of the tile that comes as number `tile`: bands of HEIGHT rows, column after column in each. Tiles
    of a band find the same rows and columns in the cache."""
    band = HEIGHT * column_tiles
    first = tile // band * HEIGHT
    height = tl.minimum(row_tiles - first, HEIGHT)
    return first + tile % band % height, tile % band // height


@triton.jit
def in_halves(tile, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Left and right half of a (ROWS, COLUMNS) tile: done with one after the other, they need fewer registers."""
    return tl.split(tl.permute(tl.reshape(tile, (ROWS, 2, COLUMNS // 2)), (0, 2, 1)))


def num_programs(device: torch.device) -> int:
    """How many programs run at once."""
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else _PROGRAMS
