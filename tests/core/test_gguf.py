"""A GGUF file as the language model."""

from pathlib import Path

import numpy as np
import pytest
import torch

from gguf_file import write_gguf
from runs import TrainFunction
from sparsify_core.capture.load import load_model
from sparsify_core.config import RunConfig
from sparsify_core.data.tokenize import load_tokenizer


def test_weights_and_tokenizer_are_those_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = write_gguf(tmp_path / "tiny.gguf")
    tokens = torch.arange(12).view(2, 6)
    for loss_fn, parameters in (("fvu", written.model.state_dict()), ("ce", written.state_dict())):
        config = RunConfig(model=str(tmp_path / "tiny.gguf"), loss_fn=loss_fn)  # type: ignore[arg-type]
        loaded = load_model(config, torch.device("cpu"))
        assert loaded.state_dict().keys() == parameters.keys()
        for name, tensor in loaded.state_dict().items():
            assert torch.equal(tensor, parameters[name]), name
    torch.testing.assert_close(loaded(tokens).logits, written(tokens).logits)
    monkeypatch.chdir(tmp_path)
    tokenizer = load_tokenizer("tiny.gguf", None)
    assert tokenizer.decode(tokenizer("kan lor<|endoftext|>").input_ids) == "kan lor<|endoftext|>"
    assert tokenizer.eos_token_id == 0


def test_training_on_it(train: TrainFunction, tmp_path: Path) -> None:
    write_gguf(tmp_path / "tiny.gguf")
    done = train(model=tmp_path / "tiny.gguf", max_tokens=2560, exclude_special_tokens=True)
    fvu = done.series("fvu/layers.0")
    assert np.mean(fvu[-5:]) < 0.8 * np.mean(fvu[:5])


@pytest.mark.parametrize(
    ("name", "num_bytes", "sentence"),
    [
        ("missing.gguf", None, "does not exist"),
        ("short.gguf", 60_000, "damaged or of an architecture not known here"),
        ("header.gguf", 3_000, "damaged or of an architecture not known here"),
        ("empty.gguf", 0, "damaged or of an architecture not known here"),
        ("model.safetensors", 100, "give a folder, a .gguf file"),
    ],
)
def test_file_that_is_no_model(
    train: TrainFunction, tmp_path: Path, name: str, num_bytes: int | None, sentence: str
) -> None:
    if num_bytes is not None:
        write_gguf(tmp_path / "whole")
        (tmp_path / name).write_bytes((tmp_path / "whole").read_bytes()[:num_bytes])
    last = train(model=tmp_path / name).events()[-1]
    assert last.reason_code == "model_error"
    assert sentence in last.message
    assert "\n" not in last.message
