"""The shape of a model from its configuration alone: what the trainer would find in the loaded model."""

import json
from pathlib import Path

import pytest
import torch

from families import FAMILIES, NUM_LAYERS, VOCABULARY, Family, build_family
from sparsify_core.capture.forward import ActivationTap
from sparsify_core.capture.hookpoints import resolve_hookpoints
from sparsify_core.capture.load import load_model
from sparsify_core.capture.shape import model_shape
from sparsify_core.cli import main
from sparsify_core.config import RunConfig
from sparsify_core.errors import ModelError
from sparsify_core.shape import ModelShape


def write_config(family: Family, folder: Path) -> Path:
    from transformers import AutoConfig

    AutoConfig.for_model(family.model_type, vocab_size=VOCABULARY, **family.sizes).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.model_type)
def test_layers_and_widths_are_found_without_weights(family: Family, tmp_path: Path) -> None:
    shape = model_shape(str(write_config(family, tmp_path)))
    modules = {module.path: module for module in shape.modules}
    assert (shape.architecture, shape.layers, shape.num_layers) == (family.model_type, family.layers, NUM_LAYERS)
    assert (shape.hidden_size, shape.vocab_size) == (32, VOCABULARY)
    for part in ("", f".{family.attention}", ".mlp"):
        module = modules[f"{family.layers}.1{part}"]
        assert (module.d_in, module.d_out) == (32, 32), module
    assert modules[family.layers].d_out is None
    assert shape.knows_widths


def test_widths_that_only_numbers_can_tell_are_not_known(tmp_path: Path) -> None:
    """Not none: the trainer, which has the weights, finds them."""
    llama = next(family for family in FAMILIES if family.model_type == "llama")
    folder = build_family(Family("mixtral", llama.sizes | {"num_local_experts": 2}), tmp_path)
    shape = model_shape(str(folder))
    assert not shape.knows_widths
    assert next(module for module in shape.modules if module.path == "layers.1").d_out is None
    model = load_model(RunConfig(model=str(folder)), torch.device("cpu"))
    tap = ActivationTap(model, ["layers.1"], needs_inputs=True)
    assert tap.widths(torch.device("cpu")) == {"layers.1": (32, 32)}


def test_shape_is_that_of_the_loaded_model(tiny_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["modules", str(tiny_model)]) == 0
    shape = ModelShape.model_validate(json.loads(capsys.readouterr().out))
    config = RunConfig(model=str(tiny_model), hookpoints=["layers.*", "layers.*.mlp.up_proj"])
    model = load_model(config, torch.device("cpu"))
    hookpoints = [m.path for m in shape.modules if m.d_in and m.path in set(resolve_hookpoints(model, config))]
    expected = ActivationTap(model, hookpoints, needs_inputs=True).widths(torch.device("cpu"))
    assert {m.path: (m.d_in, m.d_out) for m in shape.modules if m.path in expected} == expected
    assert "layers.0.mlp.up_proj" in expected
    assert shape.num_parameters == sum(p.numel() for p in model.parameters())
    assert [m.path for m in shape.modules] == [name for name, _ in model.named_modules() if name]


def test_a_model_with_code_of_its_own_is_refused(tmp_path: Path) -> None:
    config = {"model_type": "mine", "auto_map": {"AutoConfig": "mine.Config", "AutoModel": "mine.Model"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "mine.py").write_text("raise SystemExit('code of a stranger ran')\n")
    with pytest.raises(ModelError, match="needs code of its own, which is never run"):
        model_shape(str(tmp_path))
