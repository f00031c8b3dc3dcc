"""The language model and Adam's state in 8 bits: by bitsandbytes, on CUDA, refused elsewhere."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from runs import TrainFunction
from sparsify_core import eight_bit
from sparsify_core.config import RunConfig
from sparsify_core.errors import CheckpointError, ConfigError
from sparsify_core.model.coder import SparseCoder
from sparsify_core.train.optim import CoderOptimizer

CUDA = torch.device("cuda", 0)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"load_in_8bit": True, "device": "cpu"}, "load_in_8bit needs CUDA, not device cpu"),
        (
            {"load_in_8bit": True, "model": "tiny.gguf"},
            r"works with safetensors weights, and a \.gguf file is unpacked",
        ),
        ({"adam_bits": "8", "optimizer": "adam", "device": "cpu"}, "adam_bits = 8 needs CUDA, not device cpu"),
        ({"adam_bits": "8"}, "adam_bits = 8 is about optimizer adam, not signum"),
        ({"adam_bits": "auto", "optimizer": "muon"}, "adam_bits = auto is about optimizer adam, not muon"),
    ],
)
def test_options_that_do_not_fit(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValidationError, match=sentence):
        RunConfig(**changes)


@pytest.mark.skipif(torch.cuda.is_available(), reason="about machines without CUDA")
@pytest.mark.parametrize(("flag", "setting"), [("load_in_8bit", "load_in_8bit"), ("adam_bits", "adam_bits = 8")])
def test_without_cuda_it_is_refused_before_anything_is_loaded(
    train: TrainFunction, tmp_path: Path, flag: str, setting: str
) -> None:
    values = {"load_in_8bit": True, "adam_bits": 8}
    done = train(model=tmp_path / "no-model", device="auto", **{flag: values[flag]})
    assert done.exit_code == 2
    last = done.events()[-1]
    assert last.reason_code == "config_error"
    assert f"{setting} needs CUDA, and this run is on device cpu" in last.message


def test_without_bitsandbytes_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(ConfigError, match="adam_bits = 8 needs the package bitsandbytes: pip install bitsandbytes, or"):
        eight_bit.require("adam_bits = 8", CUDA, otherwise="set adam_bits to 32")
    assert not eight_bit.is_available(CUDA)


def test_state_with_another_number_of_bits_is_not_resumed() -> None:
    config = RunConfig(optimizer="adam", sae={"num_latents": 8, "k": 2})  # type: ignore[arg-type]
    optimizer = CoderOptimizer(config, {"a": SparseCoder(4, config.sae)}, 10)
    with pytest.raises(CheckpointError, match="has its state in 8 bits and this attempt's has it in 32: resume with"):
        optimizer.restore({}, {}, {"a": [{"lr": 0.1, "bits": 8}]})
    optimizer.restore({}, {}, {"a": [{"lr": 0.1}]})  # as saved before there was a choice


def test_naming_the_bits_that_auto_took_is_no_change(train: TrainFunction) -> None:
    done = train(save_every=4, keep_last=9)
    for checkpoint in done.run_dir.published():
        if checkpoint.step > 4:
            checkpoint.manifest.unlink()
    assert train(save_every=4, keep_last=9, adam_bits=32, resume=True).exit_code == 0
    assert done.events(2)[0].resumed_step == 4


@pytest.mark.gpu
def test_model_in_eight_bits_trains_like_the_whole_one(train: TrainFunction) -> None:
    pytest.importorskip("bitsandbytes")
    whole = train("whole", device="cuda", max_tokens=2560, adam_bits=32)
    packed = train("packed", device="cuda", max_tokens=2560, adam_bits=32, load_in_8bit=True)
    fvu = packed.series("fvu/layers.0")
    assert fvu[-1] < 0.8 * fvu[0]
    assert fvu[-1] == pytest.approx(whole.series("fvu/layers.0")[-1], rel=0.1)


@pytest.mark.gpu
@pytest.mark.parametrize("expansion_factor", [4, 256])
def test_adam_in_eight_bits_resumes_exactly(train: TrainFunction, expansion_factor: int) -> None:
    pytest.importorskip("bitsandbytes")
    changes = {"device": "cuda", "adam_bits": 8, "expansion_factor": expansion_factor, "save_every": 4, "keep_last": 9}
    whole = train("whole", **changes)
    cut = train("cut", **changes)
    for checkpoint in cut.run_dir.published():
        if checkpoint.step > 4:
            checkpoint.manifest.unlink()
    assert train("cut", resume=True, **changes).exit_code == 0
    resumed = [e.values["fvu/layers.0"] for e in cut.events(2) if e.type == "metrics" and "fvu/layers.0" in e.values]
    assert resumed == pytest.approx(whole.series("fvu/layers.0")[4:], rel=1e-4)
    other = train("cut", **{**changes, "adam_bits": 32}, resume=True).events(3)[-1]
    assert "has its state in 8 bits" in other.message
