"""The BatchTopK kernels against a stable sort of the whole batch."""

import pytest
import torch

pytest.importorskip("triton", reason="Triton exists for Linux only")

from sparsify_core.kernels import batchtopk, reference
from sparsify_core.kernels.maxima import group_maxima


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("shift", [0.0, -2.0, -9.0])
@pytest.mark.parametrize(
    ("tokens", "latents", "k"), [(1, 1, 1), (2, 3, 3), (3, 70, 4), (7, 100, 20), (9, 1000, 40), (40, 64, 33)]
)
def test_batchtopk_is_the_head_of_a_stable_sort(
    device: torch.device, dtype: torch.dtype, shift: float, tokens: int, latents: int, k: int
) -> None:
    """Widths that end inside a group, more latents than groups, few or no positive ones; bf16 has many ties."""
    torch.manual_seed(tokens)
    scale = torch.rand(tokens, 1) * 3  # tokens that need many latents and tokens that need few
    pre = (torch.randn(tokens, latents) * scale + shift).to(dtype)
    on_device = pre.to(device)
    got = batchtopk.select_batchtopk(on_device, group_maxima(on_device), k)
    assert got.acts.dtype == got.threshold.dtype == dtype
    for ours, expected in zip(got, reference.select_batchtopk(pre, k), strict=True):
        assert torch.equal(ours.cpu(), expected)
    expected_acts = pre.double().relu().flatten().topk(tokens * k).values
    torch.testing.assert_close(got.acts.cpu().double().sort(descending=True).values, expected_acts, rtol=0, atol=0)


def test_batchtopk_takes_ties_by_lowest_token_then_latent(device: torch.device) -> None:
    pre = torch.ones(4, 100, device=device)
    pre[3, 99] = 2.0
    got = batchtopk.select_batchtopk(pre, group_maxima(pre), 30)
    assert got.tokens.tolist() == [0] * 100 + [1] * 19 + [3]
    assert got.latents.tolist() == [*range(100), *range(19), 99]
    assert float(got.threshold) == 1.0


def test_wrong_input_is_refused(device: torch.device) -> None:
    pre = torch.randn(2, 64, device=device)
    maxima = group_maxima(pre)
    with pytest.raises(ValueError, match="k <= 64"):
        batchtopk.select_batchtopk(pre, maxima, 65)
    with pytest.raises(ValueError, match="maxima of shape"):
        batchtopk.select_batchtopk(pre, maxima.bfloat16(), 3)
