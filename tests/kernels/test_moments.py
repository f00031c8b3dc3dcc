"""Moments of rows against float64."""

import pytest
import torch

pytest.importorskip("triton")

from sparsify_core.kernels.moments import centred_moments, moments

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize(("rows", "width"), [(1, 1), (7, 24), (128, 256), (129, 300), (300, 576)])
def test_moments_and_centred_rows(rows: int, width: int, dtype: torch.dtype) -> None:
    torch.manual_seed(rows)
    y, shift = (torch.randn(rows, width) * 3 + 5).to(DEVICE, dtype), torch.randn(width, device=DEVICE) + 5
    centred, sums, square = centred_moments(y, shift)
    deviation = y.double() - shift.double()
    torch.testing.assert_close(sums, deviation.sum(0), rtol=1e-6, atol=1e-5 * rows)
    torch.testing.assert_close(square, deviation.square().sum(), rtol=1e-6, atol=0)
    # Triton's interpreter cuts bfloat16 off instead of rounding it.
    torch.testing.assert_close(centred.float(), y.float() - shift, rtol=2**-7, atol=0)
    for again, expected in zip(moments(y, shift), (sums, square), strict=True):
        torch.testing.assert_close(again, expected, rtol=1e-6, atol=1e-5 * rows)
    assert all(torch.equal(a, b) for a, b in zip(centred_moments(y, shift), (centred, sums, square), strict=True))


def test_no_rows() -> None:
    centred, sums, square = centred_moments(torch.empty(0, 8, device=DEVICE), torch.ones(8, device=DEVICE))
    assert sums.tolist() == [0.0] * 8
    assert square.item() == 0
    assert centred.shape == (0, 8)


def test_what_is_not_finite_is_seen() -> None:
    y = torch.ones(3, 8, device=DEVICE)
    y[1, 2] = torch.nan
    assert moments(y, torch.zeros(8, device=DEVICE))[1].isnan()


@pytest.mark.parametrize("bad", [torch.zeros(4, 8).T, torch.zeros(8, 4).half(), torch.zeros(8, 5)])
def test_wrong_layouts_are_refused(bad: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="need contiguous"):
        moments(bad.to(DEVICE), torch.zeros(4, device=DEVICE))
