"""How the kernels that sum entries are launched: warps, entries read at a time, and slabs of the encoder's rows.

A program of the decoder adds up each slope across its warps: their number decides on the order, and is the same for
all kernels. The encoder's sums are apart by column: no bit hangs on how they are launched.
"""

from typing import NamedTuple

import torch

from sparsify_core.kernels.rows import split_width

_SLAB_BYTES = 8 * 2**20
"""Of token rows that stay in the L2 cache while latent after latent asks for them."""
_MIN_SLAB_WIDTH = 384
"""Of narrower slabs a read is too short for what finding it costs."""
_UNROLL = 4
"""Entries whose rows are under way at once."""


class DecoderLaunch(NamedTuple):
    """Widths of a row's pieces, entries read at a time, and warps."""

    E: int
    E1: int
    E2: int
    UNROLL: int
    num_warps: int


class EncoderLaunch(NamedTuple):
    """Slabs of a row, widths of one and of its pieces, entries read at a time, and warps."""

    SLABS: int
    W: int
    W1: int
    W2: int
    UNROLL: int
    num_warps: int


def decoder_launch(width: int) -> DecoderLaunch:
    """One warp while its rows fit; sums across warps cost barriers."""
    num_warps = 1 if width <= 1024 else 4 if width <= 2048 else 8
    return DecoderLaunch(width, *split_width(width), _UNROLL, num_warps)


def encoder_launch(x_ND: torch.Tensor) -> EncoderLaunch:
    """For an encoder's input of this shape."""
    slabs = _num_slabs(x_ND)
    width = x_ND.shape[1] // slabs
    num_warps = 1 if width <= 768 else 4 if width <= 2048 else 8
    return EncoderLaunch(slabs, width, *split_width(width), _UNROLL, num_warps)


def step_launch(launch: DecoderLaunch | EncoderLaunch) -> dict[str, int]:
    """The same for a kernel that steps the rows too: their state comes on top of the sums, and one warp would spill."""
    return launch._asdict() | {"num_warps": max(launch.num_warps, 2)}


def _num_slabs(x_ND: torch.Tensor) -> int:
    """The fewest equal slabs that fit the cache, or as many as are wide enough."""
    num_tokens, width = x_ND.shape
    most = 1
    for slabs in range(1, width // _MIN_SLAB_WIDTH + 1):
        if width % (slabs * 8) == 0:  # each begins at a multiple of 16 bytes
            most = slabs
            if num_tokens * (width // slabs) * x_ND.element_size() <= _SLAB_BYTES:
                break
    return most
