"""GroupMax against the reference, in Triton's interpreter where there is no CUDA device."""

import pytest
import torch

pytest.importorskip("triton", reason="Triton exists for Linux only")

from launches import Launches
from pre_activations import expect_equal, pre_activations
from sparsify_core.kernels import groupmax, reference


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("kind", ["random", "ties", "all negative"])
@pytest.mark.parametrize(
    ("tokens", "latents", "k", "tile", "num_warps"),
    [(1, 1, 1, 1, 1), (3, 60, 5, 16, 1), (2, 96, 3, 32, 1), (2, 12, 12, 1, 1), (2, 3072, 2, 1024, 2)],
)
def test_groupmax(
    device: torch.device,
    launches: Launches,
    dtype: torch.dtype,
    kind: str,
    tokens: int,
    latents: int,
    k: int,
    tile: int,
    num_warps: int,
) -> None:
    """One group, as many as latents, and groups of several tiles."""
    pre = pre_activations(kind, tokens, latents).to(dtype)
    expect_equal(groupmax.select_groupmax(pre.to(device), k), reference.select_groupmax(pre, k))
    launch = launches.only("_select_groupmax")
    assert (launch["TILE"], launch["num_warps"]) == (tile, num_warps)


def test_unequal_groups_are_refused(device: torch.device) -> None:
    with pytest.raises(ValueError, match="divides 10 latents, got 3"):
        groupmax.select_groupmax(torch.zeros(2, 10, device=device), 3)


@pytest.mark.gpu
def test_rows_beyond_two_to_the_31() -> None:
    pre = torch.full((70_000, 32_768), -1.0, dtype=torch.bfloat16, device="cuda")
    pre[-1, [5, 31_000]] = 3.0
    assert groupmax.select_groupmax(pre, 2)[1][-1].tolist() == [5, 31_000]
