"""Compiled layers give what eager ones give, wherever the hookpoints lie."""

import copy
from typing import Any

import pytest
import torch
from through_lm import config_of, units_of
from transformers import GPT2Config, GPT2Model, GPTNeoXConfig, GPTNeoXModel, LlamaConfig, LlamaModel

import models
from sparsify_core.capture.compile import compiled_layers
from sparsify_core.capture.forward import ActivationTap
from sparsify_core.config import RunConfig
from sparsify_core.train.end_to_end import EndToEnd
from sparsify_core.train.step import StepSums

IDS = torch.arange(24).view(2, 12) * 5 % 50


def llama(**sizes: int) -> Any:
    small = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 3}
    return LlamaModel(LlamaConfig(vocab_size=50, num_attention_heads=2, num_key_value_heads=1, **(small | sizes)))


def neox(**sizes: int) -> Any:
    return GPTNeoXModel(GPTNeoXConfig(vocab_size=50, num_attention_heads=2, **sizes))


def gpt2() -> Any:
    return GPT2Model(GPT2Config(n_embd=16, n_layer=3, n_head=2, vocab_size=50, n_positions=32))


def rows(model: Any, hookpoints: list[str]) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    seen: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
    ActivationTap(model, hookpoints, needs_inputs=True).run(
        IDS, lambda name, x, y: seen.update({name: (x.clone(), y.clone())})
    )
    return seen


@pytest.mark.parametrize(
    ("make", "hookpoints"),
    [
        (llama, ["layers.1"]),
        (llama, ["layers.0.mlp", "layers.1.self_attn"]),
        (gpt2, ["h.0.attn", "h.1.mlp.c_fc"]),
    ],
)
def test_compiled_model_gives_the_same_rows(make: Any, hookpoints: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model = make().eval().requires_grad_(False)
    expected = rows(model, hookpoints)
    calls: list[Any] = []
    real = torch.compile
    # Inductor would need a C++ compiler: what matters here is what is traced, and that hooks still run.
    monkeypatch.setattr(torch, "compile", lambda f, **kw: calls.append(f) or real(f, backend="aot_eager", **kw))
    with compiled_layers(model, hookpoints, RunConfig(compile_model="on"), torch.device("cpu")):
        got = rows(model, hookpoints)
    assert calls
    assert not any("forward" in vars(module) for module in model.modules())
    assert got.keys() == expected.keys()
    for name, pair in expected.items():
        torch.testing.assert_close(got[name], pair)
    breaks = torch._dynamo.utils.counters["graph_break"]
    assert not breaks


@pytest.mark.parametrize("loss_fn", ["ce", "kl"])
@pytest.mark.parametrize("hookpoint", ["layers.1", "layers.1.mlp"])
def test_end_to_end_step_through_compiled_layers(hookpoint: str, loss_fn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lm: Any = models.llama()
    config = config_of(loss_fn, compile_model="on")
    units = units_of(config, {hookpoint: (16, 16)})
    coder = units[0].coder
    step = EndToEnd(config, lm, units)

    def gradients(ids: torch.Tensor) -> list[torch.Tensor]:
        coder.zero_grad()
        step.add({units[0].name: StepSums(units[0], config)}, ids, None)
        return [p.grad for p in coder.parameters()]

    expected = gradients(IDS)
    real = torch.compile
    monkeypatch.setattr(torch, "compile", lambda f, **kw: real(f, backend="aot_eager", **kw))
    torch._dynamo.reset()
    graphs = []
    with compiled_layers(lm.base_model, [hookpoint], config, torch.device("cpu")):
        for _ in range(3):
            torch.testing.assert_close(gradients(IDS), expected)
            graphs.append(torch._dynamo.utils.counters["stats"]["unique_graphs"])
    assert graphs[0] == graphs[2]  # compiled in the first step alone
    assert not torch._dynamo.utils.counters["graph_break"]


def test_auto_leaves_the_cpu_alone() -> None:
    model = llama()
    before = [layer.forward for layer in model.layers]
    with compiled_layers(model, ["layers.1"], RunConfig(), torch.device("cpu")):
        assert [layer.forward for layer in model.layers] == before


def test_patched_forward_comes_back() -> None:
    model = llama()
    patched = model.layers[0].forward
    model.layers[0].forward = patched
    with compiled_layers(model, ["layers.1"], RunConfig(compile_model="on"), torch.device("cpu")):
        assert model.layers[0].forward is not patched
    assert vars(model.layers[0])["forward"] is patched
    assert "forward" not in vars(model.layers[2])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA: compiled code for the CPU is not used")
@pytest.mark.parametrize("make", [llama, neox])
def test_compiled_bfloat16_is_as_near_to_float32_as_eager(make: Any) -> None:
    """MLPs by the kernel included, which the launches prove."""
    torch.manual_seed(0)
    exact = make(hidden_size=256, intermediate_size=768, num_hidden_layers=4).eval().requires_grad_(False).cuda()
    low = copy.deepcopy(exact).bfloat16()
    ids = torch.randint(50, (8, 96), device="cuda")

    def last_rows(model: Any) -> torch.Tensor:
        seen: list[torch.Tensor] = []
        ActivationTap(model, ["layers.3"], needs_inputs=False).run(ids, lambda _name, _x, y: seen.append(y.clone()))
        return seen[0].double()

    expected = last_rows(exact)
    eager = last_rows(low)
    with compiled_layers(low, ["layers.3"], RunConfig(), torch.device("cuda")):
        if torch.cuda.get_device_capability()[0] >= 9:
            assert all("forward" in vars(layer.mlp) for layer in low.layers)
        compiled = last_rows(low)
    assert (compiled - expected).norm() <= (eager - expected).norm() * 1.02
    assert not torch._dynamo.utils.counters["graph_break"]
