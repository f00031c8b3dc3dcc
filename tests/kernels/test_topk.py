"""Exact top-k against a stable sort of the whole row, in Triton's interpreter where there is no CUDA device."""

import pytest
import torch

pytest.importorskip("triton", reason="Triton exists for Linux only")

from launches import Launches
from pre_activations import expect_equal, pre_activations
from sparsify_core.kernels import reference, topk, tuning
from sparsify_core.kernels.maxima import group_maxima


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("kind", ["random", "ties", "few positive", "all negative"])
@pytest.mark.parametrize(
    ("tokens", "latents", "k", "num_warps"),
    [(1, 1, 1, 1), (3, 31, 31, 1), (2, 100, 7, 1), (2, 1030, 100, 1), (1, 2081, 64, 1)],
)
def test_topk_is_the_head_of_a_stable_sort(
    device: torch.device,
    launches: Launches,
    dtype: torch.dtype,
    kind: str,
    tokens: int,
    latents: int,
    k: int,
    num_warps: int,
) -> None:
    """Widths that end inside a group, more latents wanted than there are groups, k that is no power of two."""
    pre = pre_activations(kind, tokens, latents).to(dtype)
    on_device = pre.to(device)
    acts, indices = topk.select_topk(on_device, group_maxima(on_device), k)
    expect_equal((acts, indices), reference.select_topk(pre, k))
    expected = pre.double().relu().topk(k).values
    torch.testing.assert_close(acts.cpu().double().sort(descending=True).values, expected, rtol=0, atol=0)
    if device.type == "cpu":  # on a GPU the number of warps is tuned
        assert launches.only("_select_topk")["num_warps"] == num_warps


@pytest.mark.parametrize("kind", ["random", "ties", "few positive", "all negative"])
@pytest.mark.parametrize(
    ("tokens", "latents", "first", "k"), [(1, 1, 1, 1), (2, 100, 7, 28), (2, 1030, 100, 100), (1, 2081, 1, 64)]
)
def test_the_largest_come_first(device: torch.device, kind: str, tokens: int, latents: int, first: int, k: int) -> None:
    pre = pre_activations(kind, tokens, latents).bfloat16()
    on_device = pre.to(device)
    acts, indices = topk.select_topk(on_device, group_maxima(on_device), k, first=first)
    expect_equal((acts, indices), reference.select_topk(pre, k, first=first))
    expect_equal((acts[:, :first], indices[:, :first]), reference.select_topk(pre, first))


@pytest.mark.parametrize(
    ("latents", "k", "tiles"),
    [
        (18_432, 128, [(8, 1), (4, 1), (16, 1)]),
        (131_072, 64, [(32, 4), (32, 1)]),
        (131_072, 192, [(32, 4), (32, 1)]),
        (1 << 20, 1024, [(32, 32), (32, 8)]),
    ],
)
def test_larger_rows_get_more_warps(latents: int, k: int, tiles: list[tuple[int, int]]) -> None:
    space = topk.launches(8192, latents, k, torch.bfloat16)
    assert [(launch["TILE"], launch["num_warps"]) for launch in space.launches] == tiles


def test_every_launch_gives_the_same(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    pre = pre_activations("ties", 2, 700).to(device)
    expected = reference.select_topk(pre.cpu(), 90, first=20)
    for latents in (700, 131_072):
        for launch in topk.launches(2, latents, 90, pre.dtype).launches:
            with monkeypatch.context() as context:
                context.setattr(topk, "launches", lambda *_, own=launch: tuning.Space(str(own), [own]))
                expect_equal(topk.select_topk(pre, group_maxima(pre), 90, first=20), expected)


def test_ties_across_groups_go_to_the_lowest_latent(device: torch.device) -> None:
    """Equal maxima in more groups than are chosen, and equal values beside larger ones in one group."""
    pre = torch.zeros(1, 320)
    pre[0, torch.arange(5, 320, 32)] = 1.0
    pre[0, [160, 161, 300]] = torch.tensor([2.0, 1.0, 2.0])
    on_device = pre.to(device)
    acts, indices = topk.select_topk(on_device, group_maxima(on_device), 4)
    assert indices.tolist() == [[5, 37, 160, 300]]
    assert acts.tolist() == [[1.0, 1.0, 2.0, 2.0]]


def test_nan_is_selected(device: torch.device) -> None:
    """A NaN must reach the loss, where it stops the run."""
    pre = pre_activations("random", 2, 200).to(device)
    pre[1, 77] = float("nan")
    acts, indices = topk.select_topk(pre, group_maxima(pre), 3)
    assert acts.isnan().sum(1).tolist() == [0, 1]
    assert 77 in indices[1].tolist()


def test_what_one_program_cannot_hold_is_refused(device: torch.device) -> None:
    pre = pre_activations("random", 2, 64).to(device)
    maxima = group_maxima(pre)
    with pytest.raises(ValueError, match="k <= 64"):
        topk.select_topk(pre, maxima, 65)
    with pytest.raises(ValueError, match="first <= k, got 4 and 3"):
        topk.select_topk(pre, maxima, 3, first=4)
    with pytest.raises(ValueError, match="maxima of shape"):
        topk.select_topk(pre, maxima[:, :1], 3)
    with pytest.raises(ValueError, match="contiguous"):
        topk.select_topk(pre.T.contiguous().T, maxima, 3)


@pytest.mark.gpu
def test_rows_beyond_two_to_the_31() -> None:
    pre = torch.full((70_000, 32_768), -1.0, dtype=torch.bfloat16, device="cuda")
    pre[-1, [5, 31_000]] = 3.0
    acts, indices = topk.select_topk(pre, group_maxima(pre), 2)
    assert (acts[-1].tolist(), indices[-1].tolist()) == ([3.0, 3.0], [5, 31_000])
    assert indices[0].tolist() == [0, 1]
