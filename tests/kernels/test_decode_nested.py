"""Two reconstructions in one pass against float64, in Triton's interpreter where there is no CUDA device."""

import pytest
import torch

pytest.importorskip("triton", reason="Triton exists for Linux only")

from launches import Launches
from sparsify_core.kernels import reference
from sparsify_core.kernels.decode_nested import decode_nested

BF16, FP32 = torch.bfloat16, torch.float32


@pytest.mark.parametrize("first_share", [0.0, 0.25, 1.0])
@pytest.mark.parametrize(
    ("tokens", "k", "latents", "width", "dtype"),
    [(1, 1, 1, 1, FP32), (3, 20, 40, 6, BF16), (2, 36, 50, 100, BF16), (2, 8, 9, 64, FP32), (2, 5, 6, 2100, BF16)],
)
def test_residuals_and_squares(
    device: torch.device, tokens: int, k: int, latents: int, width: int, dtype: torch.dtype, first_share: float
) -> None:
    """Widths that are and are not a sum of two powers of two, numbers that are no multiple of the unrolling."""
    torch.manual_seed(0)
    first, weight = max(1, int(first_share * k)), 0.3
    acts, indices = torch.rand(tokens, k).to(dtype), torch.randint(latents, (tokens, k))
    table, bias, target = (
        torch.randn(latents, width).to(dtype),
        torch.randn(width),
        torch.randn(tokens, width).to(dtype),
    )
    got = decode_nested(*(t.to(device) for t in (acts, indices, table, bias, target)), first=first, weight=weight)
    exact = [t.double() for t in (table, bias, target)]
    residual, square = reference.decode_residual(acts[:, :first].double(), indices[:, :first], *exact)
    further, further_square = reference.decode_residual(acts.double(), indices, *exact)
    rows = torch.stack([residual + weight * further, weight * further], 1)
    rounding = {"rtol": 2**-7, "atol": 1e-5}  # of bfloat16, which the interpreter cuts off
    torch.testing.assert_close(got.residual_NE.cpu().double(), residual, **rounding)
    torch.testing.assert_close(got.rows_N2E.cpu().double(), rows, **rounding)
    torch.testing.assert_close(got.squares_2N.cpu().double(), torch.stack([square, further_square]), rtol=1e-5, atol=0)


def test_wider_rows_get_more_warps(device: torch.device, launches: Launches) -> None:
    acts, indices = torch.rand(2, 3, device=device), torch.zeros(2, 3, dtype=torch.int32, device=device)
    rows = torch.randn(2, 4097, device=device)
    decode_nested(acts, indices, rows, rows[0], rows, first=1, weight=1.0)
    assert launches.only("_decode_nested")["num_warps"] == 4


def test_wrong_input_is_refused(device: torch.device) -> None:
    acts, indices = torch.rand(4, 3, device=device), torch.zeros(4, 3, dtype=torch.int64, device=device)
    table, bias, target = (torch.zeros(*size, 8, device=device) for size in ((5,), (), (4,)))
    with pytest.raises(ValueError, match="first <= 3, got 4"):
        decode_nested(acts, indices, table, bias, target, first=4, weight=1.0)
    with pytest.raises(ValueError, match=r"target \(4, 8\)"):
        decode_nested(acts, indices, table, bias, target[:3], first=1, weight=1.0)
