"""How muon takes in a gradient, against float64."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton", reason="Triton exists for Linux only")

from sparsify_core.kernels.muon_average import muon_average


@pytest.mark.parametrize("is_unit", [False, True])
@pytest.mark.parametrize("shape", [(1, 1), (3, 40), (2, 1100)])
def test_average_and_what_lies_ahead(shape: tuple[int, int], is_unit: bool, device: torch.device) -> None:
    torch.manual_seed(0)
    average, grad, weights = (torch.randn(shape, device=device) for _ in range(3))
    weights /= weights.norm(dim=1, keepdim=True)
    scale = torch.tensor(0.3, device=device)
    wide = grad.double() * scale.double()
    if is_unit:
        wide -= (wide * weights).sum(1, keepdim=True) * weights
    expected = 0.95 * average.double() + 0.05 * wide
    ahead = muon_average(average, grad, scale=scale, momentum=0.95, unit_RW=weights if is_unit else None)
    torch.testing.assert_close(average.double(), expected, rtol=1e-5, atol=1e-6)
    assert ahead.dtype == torch.bfloat16
    # The interpreter cuts digits off where the GPU rounds.
    torch.testing.assert_close(ahead.double(), 0.95 * expected + 0.05 * wide, rtol=2**-7, atol=1e-6)


@pytest.mark.parametrize("change", [Tensor.double, Tensor.flatten, lambda grad: grad.T.contiguous().T])
def test_what_does_not_fit_is_refused(change: Callable[[Tensor], Tensor], device: torch.device) -> None:
    grad = torch.randn(3, 5, device=device)
    with pytest.raises(ValueError, match="pass"):
        muon_average(torch.zeros(3, 5, device=device), change(grad), scale=grad.new_ones(()), momentum=0.95)
