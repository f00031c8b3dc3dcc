"""Hookpoints, and a forward that stops where nothing more is needed."""

import pytest
import torch
from torch import Tensor, nn
from transformers import GPT2Config, GPT2Model, GPTNeoXConfig, GPTNeoXModel, LlamaConfig, LlamaModel

from sparsify_core.capture.forward import ActivationTap
from sparsify_core.capture.hookpoints import resolve_hookpoints
from sparsify_core.config import RunConfig
from sparsify_core.errors import HookpointError

SMALL = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2, "vocab_size": 50}


def llama(layers: int = 3) -> nn.Module:
    return LlamaModel(LlamaConfig(**SMALL, num_hidden_layers=layers, num_key_value_heads=1)).eval()


def gpt2() -> nn.Module:
    return GPT2Model(GPT2Config(n_embd=16, n_layer=3, n_head=2, vocab_size=50, n_positions=32)).eval()


def neox() -> nn.Module:
    return GPTNeoXModel(GPTNeoXConfig(**SMALL, num_hidden_layers=3)).eval()


@pytest.mark.parametrize(("make", "prefix"), [(llama, "layers"), (gpt2, "h"), (neox, "layers")])
def test_layer_list_is_found(make, prefix: str) -> None:
    assert resolve_hookpoints(make(), RunConfig()) == [f"{prefix}.{i}" for i in range(3)]
    assert resolve_hookpoints(make(), RunConfig(layers=[2, 0])) == [f"{prefix}.0", f"{prefix}.2"]
    assert resolve_hookpoints(make(), RunConfig(layer_stride=2)) == [f"{prefix}.0", f"{prefix}.2"]


def test_patterns_are_sorted_naturally() -> None:
    names = resolve_hookpoints(llama(11), RunConfig(hookpoints=["layers.*.mlp", "layers.1"]))
    assert names[:3] == ["layers.0.mlp", "layers.1", "layers.1.mlp"]
    assert names[-2:] == ["layers.9.mlp", "layers.10.mlp"]


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        (RunConfig(hookpoints=["layer.1.mpl"]), r"did you mean .*layers\.1\.mlp"),
        (RunConfig(hookpoints=["model.layers.1"]), r"write 'layers\.1'"),
        (RunConfig(layers=[3]), "layers 0 to 2"),
    ],
)
def test_wrong_hookpoints_are_explained(config: RunConfig, sentence: str) -> None:
    with pytest.raises(HookpointError, match=sentence):
        resolve_hookpoints(llama(), config)


def captured(model: nn.Module, names: list[str]) -> dict[str, tuple[Tensor, Tensor]]:
    found: dict[str, tuple[Tensor, Tensor]] = {}
    tap = ActivationTap(model, names, needs_inputs=True)
    tap.run(torch.arange(10).view(2, 5), lambda name, x, y: found.update({name: (x, y)}))
    return found


@pytest.mark.parametrize(("make", "prefix"), [(llama, "layers"), (gpt2, "h"), (neox, "layers")])
def test_activations_are_those_of_a_full_forward(make, prefix: str) -> None:
    model = make()
    with torch.no_grad():
        states = model(torch.arange(10).view(2, 5), output_hidden_states=True).hidden_states
    found = captured(model, [f"{prefix}.0", f"{prefix}.1"])
    for layer in range(2):
        x, y = found[f"{prefix}.{layer}"]
        torch.testing.assert_close(x, states[layer].flatten(0, 1))
        torch.testing.assert_close(y, states[layer + 1].flatten(0, 1))


def test_nothing_behind_the_deepest_hookpoint_runs() -> None:
    model = llama()
    ran: list[str] = []
    for name, module in model.named_modules():
        module.register_forward_pre_hook(lambda _module, _args, name=name: ran.append(name))
    captured(model, ["layers.0", "layers.1.mlp"])
    assert "layers.1.mlp.down_proj" in ran
    assert "layers.2" not in ran
    assert "norm" not in ran


def test_modules_called_by_keyword_and_returning_tuples() -> None:
    found = captured(llama(), ["layers.1.self_attn"])
    x, y = found["layers.1.self_attn"]
    assert x.shape == y.shape == (10, 16)


def test_module_that_is_never_called_is_named() -> None:
    model = llama()
    model.spare = nn.Linear(2, 2)
    with pytest.raises(HookpointError, match="never calls spare"):
        captured(model, ["layers.0", "spare"])


def test_inputs_that_are_token_ids_are_refused() -> None:
    with pytest.raises(HookpointError, match="input of embed_tokens"):
        captured(llama(), ["embed_tokens"])


def test_widths() -> None:
    tap = ActivationTap(llama(), ["layers.0.mlp.up_proj"], needs_inputs=True)
    assert tap.widths(torch.device("cpu")) == {"layers.0.mlp.up_proj": (16, 32)}
