"""GroupMax against the reference, in Triton's interpreter where there is no CUDA device."""

import pytest
import torch

pytest.importorskip("triton", reason="Triton exists for Linux only")

from launches import Launches
from pre_activations import expect_equal, pre_activations
from sparsify_core.kernels import groupmax, reference
from sparsify_core.kernels.maxima import group_maxima


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


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("kind", ["random", "ties", "all negative"])
@pytest.mark.parametrize(("tokens", "latents", "k"), [(1, 32, 1), (3, 96, 3), (2, 2880, 5), (2, 6400, 100)])
def test_groupmax_from_the_maxima(
    device: torch.device, launches: Launches, dtype: torch.dtype, kind: str, tokens: int, latents: int, k: int
) -> None:
    pre = pre_activations(kind, tokens, latents).to(dtype)
    on_device = pre.to(device)
    found = groupmax.select_groupmax(on_device, k, group_maxima(on_device))
    expect_equal(found, reference.select_groupmax(pre, k))
    assert launches.names == ["_group_maxima", "_select_from_maxima"]


def test_groups_that_are_no_multiple_are_read_whole(device: torch.device, launches: Launches) -> None:
    pre = pre_activations("random", 2, 96).to(device)
    found = groupmax.select_groupmax(pre, 4, group_maxima(pre))
    expect_equal(found, reference.select_groupmax(pre.cpu(), 4))
    assert launches.names == ["_group_maxima", "_select_groupmax"]


def test_nan_is_selected(device: torch.device) -> None:
    pre = pre_activations("random", 2, 192).to(device)
    pre[1, 77] = -float("nan")
    acts, indices = groupmax.select_groupmax(pre, 3, group_maxima(pre))
    assert acts.isnan().sum(1).tolist() == [0, 1]
    assert indices[1, 1] // 32 == 77 // 32


def test_unequal_groups_are_refused(device: torch.device) -> None:
    with pytest.raises(ValueError, match="divides 10 latents, got 3"):
        groupmax.select_groupmax(torch.zeros(2, 10, device=device), 3)


@pytest.mark.gpu
def test_rows_beyond_two_to_the_31() -> None:
    pre = torch.full((70_000, 32_768), -1.0, dtype=torch.bfloat16, device="cuda")
    pre[-1, [5, 31_000]] = 3.0
    assert groupmax.select_groupmax(pre, 2)[1][-1].tolist() == [5, 31_000]
