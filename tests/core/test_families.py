"""The usual architectures, in every number format, through whole runs."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from families import FAMILIES, VOCABULARY, Family, build_family
from runs import Trained, TrainFunction

EVERY_FAMILY = pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.model_type)
NUM_STEPS = 40


@pytest.fixture
def data(tmp_path: Path) -> dict[str, Any]:
    """Token ids of no language: a memmap needs no tokenizer."""
    path = tmp_path / "tokens.bin"
    np.random.default_rng(0).integers(0, VOCABULARY, 4000).astype(np.uint16).tofile(path)
    return {"dataset": path, "max_tokens": NUM_STEPS * 64, "layers": []}


def assert_learns(done: Trained, names: list[str]) -> None:
    assert done.exit_code == 0
    assert list(done.evaluation(NUM_STEPS)["coders"]) == names
    for name in names:
        fvu = done.series(f"fvu/{name}")
        assert np.mean(fvu[-5:]) < 0.9 * np.mean(fvu[:5]), name


@EVERY_FAMILY
def test_every_layer_by_default(train: TrainFunction, family: Family, data: dict[str, Any], tmp_path: Path) -> None:
    done = train(model=build_family(family, tmp_path / "model"), **data)
    assert_learns(done, [f"{family.layers}.0", f"{family.layers}.1"])


@EVERY_FAMILY
def test_mlp_and_attention(train: TrainFunction, family: Family, data: dict[str, Any], tmp_path: Path) -> None:
    model = build_family(family, tmp_path / "model")
    names = [f"{family.layers}.0.mlp", f"{family.layers}.1.{family.attention}"]
    for transcode in (False, True):
        assert_learns(train(f"{transcode}", model=model, hookpoints=names, transcode=transcode, **data), names)


@EVERY_FAMILY
def test_number_format_of_the_model(train: TrainFunction, family: Family, data: dict[str, Any], tmp_path: Path) -> None:
    model = build_family(family, tmp_path / "model", spread=1.0)  # a batch's squares sum up beyond float16
    names = [f"{family.layers}.0", f"{family.layers}.1.mlp"]
    series = {}
    for dtype in ("float32", "bfloat16", "float16"):
        done = train(dtype, model=model, hookpoints=names, dtype=dtype, **data)
        weights = [tensor for name in names for tensor in done.weights(NUM_STEPS, name).values()]
        assert all(tensor.dtype.itemsize == 4 for tensor in weights)
        series[dtype] = np.array([done.series(f"fvu/{name}") for name in names])
        np.testing.assert_allclose(series[dtype], series["float32"], rtol=0.08)
        np.testing.assert_allclose(series[dtype][:, 0], series["float32"][:, 0], rtol=0.01)


def test_transcoder_of_another_width(train: TrainFunction, data: dict[str, Any], tmp_path: Path) -> None:
    gpt2 = build_family(FAMILIES[0], tmp_path / "model")
    done = train(model=gpt2, hookpoints=["h.0.mlp.c_fc"], transcode=True, skip_connection=True, **data)
    assert_learns(done, ["h.0.mlp.c_fc"])
    shapes = {key: tuple(tensor.shape) for key, tensor in done.weights(NUM_STEPS, "h.0.mlp.c_fc").items()}
    assert (shapes["W_dec"], shapes["b_dec"], shapes["W_skip"]) == ((128, 128), (128,), (128, 32))
