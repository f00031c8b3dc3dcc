"""The MLP kernel against float64; in Triton's interpreter, which does not multiply bf16, with fp16."""

from typing import Any

import pytest
import torch
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

pytest.importorskip("triton", reason="Triton exists for Linux only")

from sparsify_core.kernels import activated_gemm as module
from sparsify_core.kernels.activated_gemm import FUNCTIONS, activated_gemm


@pytest.fixture(autouse=True)
def small_tiles(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter is slow: tiles that suit a GPU take it seconds each."""
    if device.type == "cpu":
        for name in ("GATED_LAUNCHES", "PLAIN_LAUNCHES"):
            small = {"TOKENS": 16, "FEATURES": 32, "WIDTH": 16}
            monkeypatch.setattr(module, name, [launch | small for launch in getattr(module, name)])


def exact(x: torch.Tensor, function: str) -> torch.Tensor:
    if function == "gelu_tanh":
        return functional.gelu(x, approximate="tanh")
    result: torch.Tensor = getattr(functional, function)(x)
    return result


@pytest.mark.parametrize("is_gated", [False, True])
@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize(("tokens", "features", "width"), [(1, 8, 8), (16, 32, 16), (300, 72, 40)])
def test_against_float64(
    device: torch.device, tokens: int, features: int, width: int, function: str, is_gated: bool
) -> None:
    """Sizes below one tile, of one, and more bands of tiles than one. Values reach where functions are flat."""
    torch.manual_seed(0)
    x = torch.randn(tokens, width).half()
    weight, other = ((3 * torch.randn(features, width) / width**0.5).half() for _ in range(2))
    bias = None if is_gated else torch.randn(features).half()
    options: dict[str, Any] = {"other_FD": other.to(device)} if is_gated else {"bias_F": bias.to(device)}  # type: ignore[union-attr]
    out = activated_gemm(x.to(device), weight.to(device), function, **options)
    expected = exact(functional.linear(x.double(), weight.double(), None if bias is None else bias.double()), function)
    if is_gated:
        expected *= functional.linear(x.double(), other.double())
    torch.testing.assert_close(out.cpu().double(), expected, rtol=1.5e-3, atol=1e-4)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_functions_over_their_whole_range(device: torch.device, function: str) -> None:
    """One input, so that the products are exact: what is left is the function's own error, and the rounding."""
    x = torch.linspace(-12, 12, 4096).half()[:, None].repeat(1, 8)
    weight = torch.zeros(8, 8, dtype=torch.float16)
    weight[:, 0] = 1
    out = activated_gemm(x.to(device), weight.to(device), function)
    expected = exact(x[:, :1].double(), function).expand(-1, 8)
    torch.testing.assert_close(out.cpu().double(), expected, rtol=2**-11, atol=2e-5)  # half of 12, times 2e-6


def test_nan_stays(device: torch.device) -> None:
    x = torch.full((1, 8), float("nan"), dtype=torch.float16, device=device)
    weight = torch.ones(8, 8, dtype=torch.float16, device=device)
    for function in FUNCTIONS:
        assert activated_gemm(x, weight, function).isnan().all(), function


def test_every_launch_gives_the_same(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    x, weight, other = (torch.randn(200, 64).half().to(device) for _ in range(3))
    for name, options in (("GATED_LAUNCHES", {"other_FD": other}), ("PLAIN_LAUNCHES", {})):
        given = []
        for launch in getattr(module, name):
            monkeypatch.setattr(module.tuning, "choose", lambda *_, launch=launch: launch)
            given.append(activated_gemm(x, weight, "silu", **options))
        assert all(torch.equal(one, given[0]) for one in given)


def test_operations_are_counted(device: torch.device) -> None:
    x, weight = torch.randn(16, 8).half().to(device), torch.randn(24, 8).half().to(device)
    with FlopCounterMode(display=False) as counter:
        module.operation(x, weight, "relu")
        module.operation(x, weight, "relu", None, weight.clone())
    assert counter.get_total_flops() == 3 * 2 * 16 * 8 * 24


def test_wrong_input_is_refused(device: torch.device) -> None:
    x, weight = torch.zeros(2, 8).half().to(device), torch.zeros(16, 8).half().to(device)
    for given, options, match in [
        ((x.float(), weight, "silu"), {}, "float32"),
        ((x, weight[:, :4], "silu"), {}, "do not fit"),
        ((x, weight, "silu"), {"bias_F": x[0]}, "do not fit"),
        ((x, weight, "silu"), {"other_FD": weight[:8]}, "do not fit"),
        ((x, weight.T.contiguous().T, "silu"), {}, "contiguous"),
        ((x, weight[:12], "silu"), {}, "multiples of 8, got 8 and 12"),
        ((x, weight, "tanh"), {}, "'tanh' is none of silu"),
    ]:
        with pytest.raises(ValueError, match=match):
            activated_gemm(*given, **options)
