"""The layers below the first hookpoint run once, and that changes nothing but the time."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from through_lm import IDS, KEPT, config_of, gradients, units_of
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from families import FAMILIES, Family, build_family
from models import gpt2, llama
from sparsify_core.capture.prefix import shared_layers
from sparsify_core.train import end_to_end
from sparsify_core.train.end_to_end import EndToEnd
from sparsify_core.train.step import StepSums


@pytest.mark.parametrize(
    ("hookpoints", "needs_inputs", "expected"),
    [
        (["layers.1"], False, 2),
        (["layers.1"], True, 1),
        (["layers.1", "layers.2"], False, 2),
        (["layers.2", "layers.1.mlp"], False, 1),
        (["layers.1", "layers.1.mlp"], False, 1),
        (["layers.2.mlp"], True, 2),
        (["layers.0"], False, 1),
        (["layers.0.self_attn", "layers.2"], False, 0),
        (["embed_tokens", "layers.2"], False, 0),
        (["norm"], False, 0),
    ],
)
def test_layers_that_are_shared(hookpoints: list[str], needs_inputs: bool, expected: int) -> None:
    base: Any = llama().base_model
    shared = shared_layers(base, hookpoints, needs_inputs=needs_inputs)
    assert shared == list(base.layers)[:expected]
    assert not any("forward" in vars(module) for module in base.modules())


def test_model_without_a_list_of_layers_shares_nothing() -> None:
    base: Any = llama().base_model
    base.config.num_hidden_layers = 7
    assert shared_layers(base, ["layers.1"], needs_inputs=False) == []


class Talking(nn.Module):
    """A layer that leaves something for a later one to find, as layers with shared keys and values do."""

    def __init__(self, inner: nn.Module, heard: list[Any], *, speaks: bool) -> None:
        super().__init__()
        self.inner, self.heard, self.speaks = inner, heard, speaks

    def forward(self, hidden_states: Tensor, **kwargs: Any) -> Tensor:
        if self.speaks:
            self.heard.append(hidden_states)
            return self.inner(hidden_states, **kwargs)
        return self.inner(hidden_states + self.heard.pop(), **kwargs)


@pytest.mark.parametrize("heard", [[], [0.0]], ids=["raises", "computes something else"])
def test_layers_that_need_each_other_are_not_shared(heard: list[Any]) -> None:
    base: Any = llama().base_model
    base.layers[0] = Talking(base.layers[0], heard, speaks=True)
    base.layers[2] = Talking(base.layers[2], heard, speaks=False)
    assert shared_layers(base, ["layers.1"], needs_inputs=False) == []


CASES: dict[str, tuple[Any, dict[str, tuple[int, int]], dict[str, Any]]] = {
    "residual stream": (llama, {"layers.1": (16, 16), "layers.2": (16, 16)}, {}),
    "inside of a layer": (llama, {"layers.1.mlp": (16, 16), "layers.1": (16, 16)}, {}),
    "transcoder": (llama, {"layers.1.mlp": (16, 16), "layers.2.mlp": (16, 16)}, {"transcode": True}),
    "transcoder of a layer": (llama, {"layers.1": (16, 16)}, {"transcode": True, "skip_connection": True}),
    "gpt2": (gpt2, {"h.1.attn": (16, 16)}, {"transcode": True, "skip_connection": True}),
}


@pytest.mark.parametrize("loss_fn", ["ce", "kl"])
@pytest.mark.parametrize("kept", [None, KEPT], ids=["all", "some"])
@pytest.mark.parametrize("case", CASES)
def test_sharing_changes_no_bit(case: str, kept: Tensor | None, loss_fn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    make, hookpoints, changes = CASES[case]
    lm, config = make(), config_of(loss_fn, init_seeds=[3, 4], **changes)
    units = units_of(config, hookpoints)
    batches = [(IDS, kept), (IDS.flip(0), kept)]  # micro-batches: nothing of one may stay for the next
    losses, grads = gradients(config, lm, units, batches)
    monkeypatch.setattr(end_to_end, "shared_layers", lambda *_, **__: [])
    plain_losses, plain_grads = gradients(config, lm, units, batches)
    assert losses == plain_losses
    assert all(torch.equal(grad, plain_grads[name]) for name, grad in grads.items())
    assert all(grad.any() for grad in grads.values())


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.model_type)
def test_every_family_shares(family: Family, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lm = AutoModelForCausalLM.from_pretrained(build_family(family, tmp_path / "model")).eval().requires_grad_(False)
    for inside, transcode, shared in (
        ("", False, 2),
        ("", True, 1),
        (".mlp", True, 1),
        (f".{family.attention}", False, 1),
    ):
        name = f"{family.layers}.1{inside}"
        assert len(shared_layers(lm.base_model, [name], needs_inputs=transcode)) == shared
        config = config_of("kl", transcode=transcode)
        units = units_of(config, {name: (32, 32)})
        losses, grads = gradients(config, lm, units, [(IDS, KEPT)])
        with monkeypatch.context() as patch:
            patch.setattr(end_to_end, "shared_layers", lambda *_, **__: [])
            expected = gradients(config, lm, units, [(IDS, KEPT)])
        assert losses == expected[0]
        assert all(torch.equal(grad, expected[1][key]) for key, grad in grads.items())


@pytest.mark.parametrize(("loss_fn", "forwards"), [("ce", 2), ("kl", 3)])
def test_every_layer_runs_as_often_as_it_must(loss_fn: str, forwards: int) -> None:
    lm: Any = llama()
    config = config_of(loss_fn, init_seeds=[3, 4])
    units = units_of(config, {"layers.1": (16, 16)})
    sums = {unit.name: StepSums(unit, config) for unit in units}
    step = EndToEnd(config, lm, units)
    calls: Counter[int] = Counter()
    for number, layer in enumerate(lm.model.layers):
        layer.mlp.register_forward_hook(lambda *_, number=number: calls.update([number]))
    for batch in range(1, 3):
        step.add(sums, IDS, None)
        assert calls == {0: batch, 1: batch, 2: batch * forwards}


def test_nothing_is_stored_below_the_first_hookpoint() -> None:
    lm: Any = llama()
    config = config_of("ce")
    units = units_of(config, {"layers.1.mlp": (16, 16)})
    sums = {unit.name: StepSums(unit, config) for unit in units}
    step = EndToEnd(config, lm, units)
    running: list[str] = []
    stored: Counter[str] = Counter()
    places = {"layer 0": lm.model.layers[0], "attention 1": lm.model.layers[1].self_attn, "layer 2": lm.model.layers[2]}
    for name, module in places.items():
        module.register_forward_pre_hook(lambda *_, name=name: running.append(name))
        module.register_forward_hook(lambda *_: running.pop() and None)

    def note(tensor: Tensor) -> Tensor:
        stored.update(running)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        step.add(sums, IDS, None)
    assert set(stored) == {"layer 2"}
