"""The encoder kernel against float64; in Triton's interpreter, which does not multiply bf16, with fp16."""

import pytest
import torch

pytest.importorskip("triton", reason="Triton exists for Linux only")

from sparsify_core.kernels import encode_gemm, reference
from sparsify_core.kernels.dispatch import GROUP


@pytest.fixture(autouse=True)
def small_tiles(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter reduces one element after the other: seconds for a tile that suits a GPU."""
    if device.type == "cpu":
        small = {"TOKENS": 16, "LATENTS": 64, "WIDTH": 16}
        monkeypatch.setattr(encode_gemm, "LAUNCHES", [launch | small for launch in encode_gemm.LAUNCHES])


@pytest.mark.parametrize(("tokens", "latents", "width"), [(1, 8, 8), (16, 64, 16), (17, 72, 24), (300, 200, 40)])
def test_pre_activations_and_group_maxima(device: torch.device, tokens: int, latents: int, width: int) -> None:
    """Sizes below one tile, of one, just beyond, and more bands of tiles than one."""
    torch.manual_seed(0)
    x = torch.randn(tokens, width).half()
    weight, bias = (torch.randn(latents, width) / width**0.5).half(), torch.randn(latents)
    pre, maxima = encode_gemm.encode_gemm(x.to(device), weight.to(device), bias.to(device))
    expected = x.double() @ weight.double().T + bias.double()
    torch.testing.assert_close(pre.cpu().double(), expected, rtol=2e-3, atol=2e-3)
    assert torch.equal(maxima.cpu(), reference.group_maxima(pre.cpu(), GROUP))


def test_nan_and_negative_groups(device: torch.device) -> None:
    x = torch.ones(2, 8, dtype=torch.float16, device=device)
    weight = torch.zeros(72, 8, dtype=torch.float16, device=device)
    bias = torch.full((72,), -1.0, device=device)
    bias[[3, 40]] = torch.tensor([-0.0, float("nan")], device=device)
    maxima = encode_gemm.encode_gemm(x, weight, bias)[1]
    assert maxima[:, [0, 2]].tolist() == [[0.0, 0.0]] * 2
    assert not maxima[:, [0, 2]].signbit().any()
    assert maxima[:, 1].isnan().all()


def test_wrong_input_is_refused(device: torch.device) -> None:
    x, weight, bias = torch.zeros(2, 8).half(), torch.zeros(16, 8).half(), torch.zeros(16)
    for changed, match in [
        ((x.float(), weight, bias), "float32"),
        ((x, weight[:, :4], bias), "do not fit"),
        ((x, weight, bias[:8]), "do not fit"),
        ((x, weight.T.contiguous().T, bias), "contiguous"),
        ((x, weight[:12], bias[:12]), "multiples of 8, got 8 and 12"),
    ]:
        with pytest.raises(ValueError, match=match):
            encode_gemm.encode_gemm(*(t.to(device) for t in changed))
