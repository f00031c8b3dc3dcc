"""Launches of the kernels that sum entries: every column is in one slab, and slabs fit the cache where they can."""

import pytest
import torch

pytest.importorskip("triton", reason="Triton exists for Linux only")

from sparsify_core.kernels.entry_launches import decoder_launch, encoder_launch

SLAB_BYTES, MIN_WIDTH = 8 * 2**20, 384


@pytest.mark.parametrize("width", [8, 24, 576, 768, 1000, 1024, 2304, 4096, 5120])
@pytest.mark.parametrize("tokens", [1, 512, 8192, 65_536])
def test_slabs(tokens: int, width: int) -> None:
    x = torch.empty(tokens, width, dtype=torch.bfloat16, device="meta")
    launch = encoder_launch(x)
    assert width == launch.SLABS * launch.W
    assert launch.SLABS == 1 or (launch.W >= MIN_WIDTH and launch.W % 8 == 0)
    assert launch.W <= launch.W1 + launch.W2
    finer = [n for n in range(launch.SLABS + 1, width // MIN_WIDTH + 1) if width % (8 * n) == 0]
    fits = tokens * launch.W * 2 <= SLAB_BYTES
    assert fits or not finer
    coarser = [n for n in range(1, launch.SLABS) if width % (8 * n) == 0]
    assert all(tokens * (width // n) * 2 > SLAB_BYTES for n in coarser)


def test_known_shapes() -> None:
    """Those of the benchmarks: 8,192 tokens of 4,096 are cut into eight, and 32,768 of 768 into two."""
    shapes = [(65_536, 576), (32_768, 768), (8192, 4096)]
    given = [encoder_launch(torch.empty(*shape, dtype=torch.bfloat16, device="meta")) for shape in shapes]
    assert [launch.SLABS for launch in given] == [1, 2, 8]


@pytest.mark.parametrize(("width", "warps"), [(576, 1), (1024, 1), (2048, 4), (4096, 8)])
def test_warps_of_the_decoder(width: int, warps: int) -> None:
    launch = decoder_launch(width)
    assert (launch.E, launch.num_warps) == (width, warps)
    assert launch.E <= launch.E1 + launch.E2
