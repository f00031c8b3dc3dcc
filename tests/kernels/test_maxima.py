"""Group maxima against the reference, in Triton's interpreter where there is no CUDA device."""

import pytest
import torch

pytest.importorskip("triton", reason="Triton exists for Linux only")

from pre_activations import pre_activations
from sparsify_core.kernels import reference
from sparsify_core.kernels.dispatch import GROUP
from sparsify_core.kernels.maxima import group_maxima

DTYPES = [torch.bfloat16, torch.float32]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", ["random", "all negative"])
@pytest.mark.parametrize(("tokens", "latents"), [(1, 1), (3, 31), (2, 32), (5, 100), (2, 4131)])
def test_maxima(device: torch.device, dtype: torch.dtype, kind: str, tokens: int, latents: int) -> None:
    """Groups that are short, and more of them than one program takes."""
    pre = pre_activations(kind, tokens, latents).to(dtype)
    on_device = pre.to(device, copy=True)
    assert torch.equal(group_maxima(on_device).cpu(), reference.group_maxima(pre, GROUP))
    assert torch.equal(on_device.cpu(), pre)


@pytest.mark.parametrize("dtype", DTYPES)
def test_nan_stays_and_zero_has_no_sign(device: torch.device, dtype: torch.dtype) -> None:
    pre = torch.full((1, 4 * GROUP), -1.0, dtype=dtype)
    pre[0, [3, GROUP, 2 * GROUP + 5, 3 * GROUP]] = torch.tensor(
        [-0.0, float("-inf"), -float("nan"), float("inf")], dtype=dtype
    )
    maxima = group_maxima(pre.to(device)).cpu()
    expected = torch.tensor([[0, 0, float("nan"), float("inf")]], dtype=dtype)
    torch.testing.assert_close(maxima, expected, rtol=0, atol=0, equal_nan=True)
    assert not maxima[0, :2].signbit().any()


def test_another_number_format_is_refused(device: torch.device) -> None:
    with pytest.raises(ValueError, match="float64"):
        group_maxima(torch.zeros(2, 64, dtype=torch.float64, device=device))
