"""Selection kernels against a stable sort of the whole row, in Triton's interpreter where there is no CUDA device."""

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton", reason="Triton exists for Linux only")

from sparsify_core.kernels import group_max as group_max_kernel
from sparsify_core.kernels import groupmax, reference, topk

DTYPES = [torch.bfloat16, torch.float32]


def rows(kind: str, tokens: int, latents: int) -> Tensor:
    """(N, M) float32 pre-activations: random, with many ties, with few positive ones, or with none."""
    torch.manual_seed(tokens + latents)
    pre = torch.randn(tokens, latents)
    if kind == "ties":
        return (pre * 2).round() / 2
    if kind == "few positive":
        return pre - 2.5
    if kind == "all negative":
        return -pre.abs() - 1
    return pre


def expect_equal(got: tuple[Tensor, Tensor], expected: tuple[Tensor, Tensor]) -> None:
    torch.testing.assert_close(got[0].cpu(), expected[0], rtol=0, atol=0, equal_nan=True)
    assert got[1].dtype == torch.int32
    assert torch.equal(got[1].cpu(), expected[1])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("relu_in_place", [False, True])
@pytest.mark.parametrize(("tokens", "latents"), [(1, 1), (3, 31), (2, 32), (5, 100), (2, 4131)])
def test_group_max(device: torch.device, dtype: torch.dtype, relu_in_place: bool, tokens: int, latents: int) -> None:
    pre = rows("random", tokens, latents).to(dtype)
    on_device = pre.to(device, copy=True)
    maxima = group_max_kernel.group_max(on_device, relu_in_place=relu_in_place)
    assert torch.equal(maxima.cpu(), reference.group_max(pre, group_max_kernel.GROUP))
    assert torch.equal(on_device.cpu(), pre.relu() if relu_in_place else pre)


@pytest.mark.parametrize("dtype", DTYPES)
def test_relu_keeps_nan_and_clears_the_sign_of_zero(device: torch.device, dtype: torch.dtype) -> None:
    pre = torch.tensor([[-0.0, -1.0, float("-inf"), 0.0, float("nan"), -float("nan"), float("inf")]], dtype=dtype)
    on_device = pre.to(device, copy=True)
    assert group_max_kernel.group_max(on_device, relu_in_place=True).isnan().all()
    torch.testing.assert_close(on_device.cpu(), pre.relu(), equal_nan=True)
    assert not on_device[0, :4].signbit().any()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", ["random", "ties", "few positive", "all negative"])
@pytest.mark.parametrize(
    ("tokens", "latents", "k"),
    [(1, 1, 1), (3, 31, 31), (2, 100, 7), (2, 1030, 100), (1, 2081, 64)],
)
def test_topk_is_the_head_of_a_stable_sort(
    device: torch.device, dtype: torch.dtype, kind: str, tokens: int, latents: int, k: int
) -> None:
    """Widths that end inside a group, more latents wanted than there are groups, k that is no power of two."""
    pre = rows(kind, tokens, latents).to(dtype)
    on_device = pre.to(device)
    acts, indices = topk.select_topk(on_device, group_max_kernel.group_max(on_device), k)
    expect_equal((acts, indices), reference.select_topk(pre, k))
    expected = pre.double().relu().topk(k).values
    torch.testing.assert_close(acts.cpu().double().sort(descending=True).values, expected, rtol=0, atol=0)


def test_topk_takes_ties_across_groups_by_lowest_latent(device: torch.device) -> None:
    """Equal maxima in more groups than are chosen, and equal values beside larger ones in one group."""
    pre = torch.zeros(1, 320)
    pre[0, torch.arange(5, 320, 32)] = 1.0
    pre[0, [160, 161, 300]] = torch.tensor([2.0, 1.0, 2.0])
    on_device = pre.to(device)
    acts, indices = topk.select_topk(on_device, group_max_kernel.group_max(on_device), 4)
    assert indices.tolist() == [[5, 37, 160, 300]]
    assert acts.tolist() == [[1.0, 1.0, 2.0, 2.0]]


def test_topk_selects_nan(device: torch.device) -> None:
    """A NaN must reach the loss, where it stops the run."""
    pre = rows("random", 2, 200).to(device)
    pre[1, 77] = float("nan")
    acts, indices = topk.select_topk(pre, group_max_kernel.group_max(pre), 3)
    assert acts.isnan().sum(1).tolist() == [0, 1]
    assert 77 in indices[1].tolist()


def test_topk_refuses_what_it_cannot_hold(device: torch.device) -> None:
    pre = rows("random", 2, 64).to(device)
    maxima = group_max_kernel.group_max(pre)
    with pytest.raises(ValueError, match="k <= 64"):
        topk.select_topk(pre, maxima, 65)
    with pytest.raises(ValueError, match="maxima of shape"):
        topk.select_topk(pre, maxima[:, :1], 3)
    with pytest.raises(ValueError, match="contiguous"):
        topk.select_topk(pre.T.contiguous().T, maxima, 3)
    with pytest.raises(ValueError, match="float64"):
        group_max_kernel.group_max(pre.double())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", ["random", "ties", "all negative"])
@pytest.mark.parametrize(("tokens", "latents", "k"), [(1, 1, 1), (3, 60, 5), (2, 96, 3), (2, 12, 12), (2, 3072, 2)])
def test_groupmax(device: torch.device, dtype: torch.dtype, kind: str, tokens: int, latents: int, k: int) -> None:
    pre = rows(kind, tokens, latents).to(dtype)
    expect_equal(groupmax.select_groupmax(pre.to(device), k), reference.select_groupmax(pre, k))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", ["random", "ties", "all negative"])
@pytest.mark.parametrize(("tokens", "latents", "k"), [(1, 32, 1), (3, 96, 3), (2, 2880, 5), (2, 6400, 100)])
def test_groupmax_from_the_maxima(
    device: torch.device, dtype: torch.dtype, kind: str, tokens: int, latents: int, k: int
) -> None:
    pre = rows(kind, tokens, latents).to(dtype)
    on_device = pre.to(device)
    found = groupmax.select_groupmax(on_device, k, group_max_kernel.group_max(on_device))
    expect_equal(found, reference.select_groupmax(pre, k))


def test_groupmax_selects_nan(device: torch.device) -> None:
    pre = rows("random", 2, 192).to(device)
    pre[1, 77] = -float("nan")
    acts, indices = groupmax.select_groupmax(pre, 3, group_max_kernel.group_max(pre))
    assert acts.isnan().sum(1).tolist() == [0, 1]
    assert indices[1, 1] // 32 == 77 // 32


def test_groupmax_refuses_unequal_groups(device: torch.device) -> None:
    with pytest.raises(ValueError, match="divides 10 latents, got 3"):
        groupmax.select_groupmax(rows("random", 2, 10).to(device), 3)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_rows_beyond_two_to_the_31() -> None:
    pre = torch.full((70_000, 32_768), -1.0, dtype=torch.bfloat16, device="cuda")
    pre[-1, [5, 31_000]] = 3.0
    acts, indices = topk.select_topk(pre, group_max_kernel.group_max(pre), 2)
    assert (acts[-1].tolist(), indices[-1].tolist()) == ([3.0, 3.0], [5, 31_000])
    assert indices[0].tolist() == [0, 1]
    assert groupmax.select_groupmax(pre, 2)[1][-1].tolist() == [5, 31_000]
