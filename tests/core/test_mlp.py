"""Which modules are known as MLPs, and that they give the same by the kernel."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    Gemma3TextConfig,
    Gemma3TextModel,
    GPT2Config,
    GPT2Model,
    GPTNeoXConfig,
    GPTNeoXModel,
    LlamaConfig,
    LlamaModel,
)

from sparsify_core.capture.mlp import Mlp, find_mlp, fused, fused_mlps


def llama(**options: Any) -> nn.Module:
    config = LlamaConfig(
        vocab_size=50, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, **options
    )
    return LlamaModel(config).eval()


def neox(**options: Any) -> nn.Module:
    config = GPTNeoXConfig(
        vocab_size=50, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, **options
    )
    return GPTNeoXModel(config).eval()


def gemma() -> nn.Module:
    config = Gemma3TextConfig(
        vocab_size=50, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, head_dim=8
    )
    return Gemma3TextModel(config).eval()


@pytest.mark.parametrize(
    ("model", "function", "is_gated"),
    [
        (llama(), "silu", True),
        (llama(hidden_act="relu"), "relu", True),
        (gemma(), "gelu_tanh", True),
        (neox(), "gelu", False),
        (neox(hidden_act="gelu_new"), "gelu_tanh", False),
    ],
)
def test_mlps_of_models(model: nn.Module, function: str, is_gated: bool) -> None:
    found = {name: mlp for name, module in model.named_modules() if (mlp := find_mlp(module)) is not None}
    assert list(found) == ["layers.0.mlp", "layers.1.mlp"]
    for name, mlp in found.items():
        module = model.get_submodule(name)
        assert (mlp.function, mlp.other is not None) == (function, is_gated)
        if is_gated:
            assert (mlp.first, mlp.other) == (module.gate_proj, module.up_proj)


class Odd(nn.Module):
    """Made of the same parts as a gated MLP."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.gate_proj, self.up_proj = (nn.Linear(16, 24, bias=kind == "bias") for _ in range(2))
        self.down_proj = nn.Linear(24, 16, bias=False)
        self.act_fn = nn.Tanh() if kind == "tanh" else nn.SiLU()
        self.kind = kind

    def forward(self, x: Tensor) -> Tensor:
        hidden: Tensor = self.act_fn(self.gate_proj(x)) * self.up_proj(x)
        if self.kind == "capped":
            hidden = hidden.clamp(max=0.01)
        result: Tensor = self.down_proj(hidden)
        return result


@pytest.mark.parametrize("kind", ["capped", "bias", "tanh"])
def test_what_computes_something_else_is_left_alone(kind: str) -> None:
    torch.manual_seed(0)
    assert find_mlp(Odd("plain")) is not None
    assert find_mlp(Odd(kind)) is None


def test_models_without_such_mlps() -> None:
    gpt2 = GPT2Model(GPT2Config(n_embd=16, n_layer=2, n_head=2, vocab_size=50, n_positions=32)).eval()
    assert all(find_mlp(module) is None for module in gpt2.modules())
    assert find_mlp(llama(mlp_bias=True).get_submodule("layers.0.mlp")) is None


def test_no_kernel_where_there_is_none_to_run() -> None:
    """The CPU, and float32 everywhere."""
    assert not fused_mlps(llama().children())


@pytest.mark.parametrize("make", [llama, neox])
def test_fused_forward(make: Any) -> None:
    torch.manual_seed(0)
    module = make().half().get_submodule("layers.0.mlp")
    mlp = find_mlp(module)
    assert isinstance(mlp, Mlp)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    module.to(device)
    forward = fused(mlp, module.forward)
    x = torch.randn(2, 5, 16, device=device).half()
    with torch.no_grad():
        torch.testing.assert_close(forward(x), module(x), rtol=4e-3, atol=1e-3)
    x.requires_grad_()
    wide = module.float()  # the gradient comes through the module's own forward
    (expected,) = torch.autograd.grad(wide(x.float()).sum(), x)
    (given,) = torch.autograd.grad(fused(mlp, module.forward)(x.float()).sum(), x)
    assert torch.equal(given, expected)
