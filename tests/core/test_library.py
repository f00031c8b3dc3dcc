"""The package as a library, under upstream's names."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import sparsify_core
from sparsify_core import Sae, SaeConfig, SparseCoder, SparseCoderConfig, TrainConfig, TranscoderConfig
from sparsify_core.errors import CheckpointError
from sparsify_core.formats.sparsify import load_coder

LAZY = """
import sys
import sparsify_core, sparsify_core.config
from sparsify_core import SaeConfig, TrainConfig, TranscoderConfig
print([name for name in ("torch", "datasets", "numpy") if name in sys.modules])
"""


def test_configurations_load_nothing_heavy() -> None:
    out = subprocess.run([sys.executable, "-c", LAZY], check=True, capture_output=True, text=True).stdout
    assert out == "[]\n"


def test_every_name_of_the_package_exists() -> None:
    for name in sparsify_core.__all__:
        assert getattr(sparsify_core, name) is not None
    assert set(sparsify_core.__all__) <= set(dir(sparsify_core))
    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        sparsify_core.Nothing  # noqa: B018


def test_names_and_positions_are_upstreams() -> None:
    assert Sae is SparseCoder
    assert SaeConfig is SparseCoderConfig
    assert TranscoderConfig(k=3).transcode
    assert TrainConfig(SaeConfig(k=3), batch_size=16).sae.k == 3


def test_new_coder_has_upstreams_weights() -> None:
    torch.manual_seed(0)
    coder = Sae(32, SaeConfig(num_latents=128))
    expected = torch.tensor([-0.00132350, 0.09483072, -0.14549519])
    torch.testing.assert_close(coder.encoder.weight[0, :3].detach(), expected, atol=1e-8, rtol=1e-6)
    assert coder.device.type == "cpu"
    assert coder.dtype == torch.float32


def save(root: Path, *names: str, **config: Any) -> None:
    for seed, name in enumerate(names):
        torch.manual_seed(seed)
        Sae(8, SaeConfig(**{"num_latents": 32, "k": 4, **config})).save_to_disk(root / name)


def test_saved_coder_comes_back(tmp_path: Path) -> None:
    save(tmp_path, "a", skip_connection=True)
    first = Sae.load_from_disk(tmp_path / "a")
    assert first.cfg.skip_connection
    assert json.loads((tmp_path / "a" / "cfg.json").read_text())["num_latents"] == 32
    x = torch.randn(3, 5, 8)
    encoded = first.encode(x)
    assert encoded.top_acts.shape == encoded.top_indices.shape == (3, 5, 4)
    assert encoded.pre_acts.shape == (3, 5, 32)
    assert torch.equal(encoded.pre_acts.gather(-1, encoded.top_indices), encoded.top_acts)
    assert first.decode(encoded.top_acts, encoded.top_indices).shape == (3, 5, 8)


def test_tree_is_read_as_a_whole(tmp_path: Path) -> None:
    save(tmp_path, "layers.10", "layers.9/seed0", "layers.9/seed1", "model.layers.3.mlp", "best/layers.9", ".cache/x")
    (tmp_path / "logs").mkdir()
    names = ["layers.9/seed0", "layers.9/seed1", "layers.10", "model.layers.3.mlp"]
    assert list(Sae.load_many(str(tmp_path), local=True)) == names
    assert list(Sae.load_many(str(tmp_path), local=True, layers=["layers.9"])) == names[:2]
    assert list(Sae.load_many(str(tmp_path), local=True, pattern="layers.*")) == names[:3]
    assert list(Sae.load_many(str(tmp_path), local=True, pattern="layers.9")) == names[:2]
    assert list(Sae.load_many(str(tmp_path), local=True, pattern="*.mlp")) == names[3:]


def test_doubled_names_below_best_are_read_once(tmp_path: Path) -> None:
    save(tmp_path / "best", "h.0/h.0", "h.1/h.1")
    assert list(Sae.load_many(str(tmp_path / "best"), local=True)) == ["h.0", "h.1"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [({"layers": ["h.5"]}, "has no coder h.5: it has h.0"), ({"pattern": "x*"}, "matches 'x\\*': it has h.0")],
)
def test_what_is_not_there_is_named(tmp_path: Path, arguments: dict[str, Any], sentence: str) -> None:
    save(tmp_path, "h.0")
    with pytest.raises(CheckpointError, match=sentence):
        Sae.load_many(str(tmp_path), local=True, **arguments)
    with pytest.raises(CheckpointError, match="holds no sparse coder"):
        Sae.load_many(str(tmp_path / "h.0" / "none"), local=True)
    with pytest.raises(CheckpointError, match=r"has no cfg\.json"):
        Sae.load_from_disk(tmp_path)


def test_coder_without_decoder_encodes(tmp_path: Path) -> None:
    save(tmp_path, "whole")
    whole = Sae.load_from_disk(tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "half")
    weights = load_file(tmp_path / "whole" / "sae.safetensors")
    del weights["W_dec"]
    save_file(weights, tmp_path / "half" / "sae.safetensors")
    with pytest.raises(CheckpointError, match="has no W_dec: load it with decoder=False"):
        Sae.load_from_disk(tmp_path / "half")
    x = torch.randn(5, 8)
    for name in ("whole", "half"):
        coder = Sae.load_from_disk(tmp_path / name, decoder=False)
        assert coder.W_dec is None
        assert torch.equal(coder.encode(x).top_acts, whole.encode(x).top_acts)
        with pytest.raises(CheckpointError, match="can only encode"):
            coder(x)
    coder.save_to_disk(tmp_path / "again")
    assert "W_dec" not in load_file(tmp_path / "again" / "sae.safetensors")


LAYOUTS: dict[str, dict[str, tuple[str, bool]]] = {
    "decoder": {"W_dec": ("decoder.weight", False), "b_dec": ("decoder.bias", False)},
    "matrices": {"encoder.weight": ("W_enc", True), "encoder.bias": ("b_enc", False)},
    "linear": {"encoder.weight": ("W_enc", False), "W_dec": ("decoder.weight", True)},
}
"""Name of the layout -> our name -> the file's, and whether the matrix is transposed."""


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("num_latents", [32, 8])
def test_tensors_under_other_names(tmp_path: Path, layout: str, num_latents: int) -> None:
    save(tmp_path, "a", num_latents=num_latents, skip_connection=True)
    known = Sae.load_from_disk(tmp_path / "a")
    file = tmp_path / "a" / "sae.safetensors"
    stored = {}
    for name, tensor in load_file(file).items():
        other, transposed = LAYOUTS[layout].get(name, (name, False))
        # Of a square matrix the file does not tell how it lies.
        stored[other] = tensor.T.contiguous() if transposed and num_latents != 8 else tensor
    save_file(stored, file)
    coder = Sae.load_from_disk(tmp_path / "a")
    for name, tensor in known.state_dict().items():
        assert torch.equal(coder.state_dict()[name], tensor), name
    if layout == "matrices":
        encoder = Sae.load_from_disk(tmp_path / "a", decoder=False)
        assert torch.equal(encoder.encode(torch.ones(1, 8)).top_acts, known.encode(torch.ones(1, 8)).top_acts)
    save_file({**stored, **known.state_dict()}, file)
    with pytest.raises(CheckpointError, match="holds both"):
        Sae.load_from_disk(tmp_path / "a")


def test_other_names_in_two_bytes(tmp_path: Path) -> None:
    save(tmp_path, "a")
    file = tmp_path / "a" / "sae.safetensors"
    weights = load_file(file)
    mixed = {"W_enc": weights["encoder.weight"].T.bfloat16().contiguous(), "b_enc": weights["encoder.bias"].bfloat16()}
    save_file({**mixed, "decoder.weight": weights["W_dec"], "b_dec": weights["b_dec"].half()}, file)
    coder = load_coder(tmp_path / "a")
    assert {p.dtype for p in coder.parameters()} == {torch.float32}
    assert torch.equal(coder.encoder.weight, weights["encoder.weight"].bfloat16().float())
    assert torch.equal(coder.W_dec, weights["W_dec"])
    assert len({p.dtype for p in Sae.load_from_disk(tmp_path / "a").parameters()}) == 1


def test_old_keys_and_unresolved_widths(tmp_path: Path) -> None:
    save(tmp_path, "a")
    old = {"expansion_factor": 4, "normalize_decoder": True, "num_latents": 0, "k": 4, "signed": False, "d_in": 8}
    (tmp_path / "a" / "cfg.json").write_text(json.dumps(old))
    coder = Sae.load_from_disk(tmp_path / "a")
    assert coder.num_latents == 32
    assert coder.cfg.activation == "topk"


def test_tensor_too_many_or_of_another_shape_is_refused(tmp_path: Path) -> None:
    save(tmp_path, "a")
    file = tmp_path / "a" / "sae.safetensors"
    weights = load_file(file)
    save_file({**weights, "threshold": torch.zeros(32)}, file)
    with pytest.raises(CheckpointError, match="threshold"):
        Sae.load_from_disk(tmp_path / "a")
    save_file({**weights, "b_dec": torch.zeros(9)}, file)
    with pytest.raises(CheckpointError, match="b_dec"):
        Sae.load_from_disk(tmp_path / "a")


def test_width_that_is_no_number_is_refused(tmp_path: Path) -> None:
    save(tmp_path, "a")
    for values in (
        {"k": 4, "d_in": "wide"},
        {"k": 4},
        [],
        {"k": 4, "d_in": 8, "d_out": "x"},
        {"k": 4, "d_in": 8, "d_out": -3},
    ):
        (tmp_path / "a" / "cfg.json").write_text(json.dumps(values))
        with pytest.raises(CheckpointError, match="cannot be read"):
            Sae.load_from_disk(tmp_path / "a")


def test_one_coder_of_a_repository(hub: Path) -> None:
    save(hub, "layers.1", "layers.10")
    assert Sae.load_from_hub("owner/saes", "layers.1").num_latents == 32
    assert [p.name for p in (hub.parent / "snapshot").iterdir()] == ["layers.1"]
    with pytest.raises(CheckpointError, match="give a hookpoint"):
        Sae.load_from_hub("owner/saes")


@pytest.mark.parametrize("arguments", [{"layers": ["layers.1"]}, {"pattern": "layers.1"}])
def test_only_what_is_wanted_is_downloaded(hub: Path, arguments: dict[str, Any]) -> None:
    save(hub, "layers.1/seed0", "layers.1/seed1", "layers.10")
    assert list(Sae.load_many("owner/saes", **arguments)) == ["layers.1/seed0", "layers.1/seed1"]
    assert [p.name for p in (hub.parent / "snapshot").iterdir()] == ["layers.1"]
