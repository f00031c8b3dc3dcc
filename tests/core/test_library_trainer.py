"""Trainer under upstream's name: a model and tokens that the program holds."""

from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from runs import Trained
from sparsify_core import MemmapDataset, SaeConfig, SparseCoder, TrainConfig, Trainer, evaluate
from sparsify_core.config import RunConfig
from sparsify_core.errors import ConfigError, DataError

IDS = np.random.default_rng(0).integers(2, 66, (48, 16))


@pytest.fixture
def config(tmp_path: Path, one_core: None) -> Any:
    def make(**changes: Any) -> TrainConfig:
        values = {"batch_size": 4, "layers": [0], "eval_tokens": 64, "save_dir": str(tmp_path), "lr": 0.003, **changes}
        return TrainConfig(SaeConfig(num_latents=64, k=4), **values)

    return make


@pytest.fixture
def model(tiny_model: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(tiny_model)


def test_dataset_is_trained_on_in_its_order(config: Any, model: Any, tmp_path: Path) -> None:
    trainer = Trainer(config(log_every=1), datasets.Dataset.from_dict({"input_ids": IDS.tolist()}), model)
    assert trainer.saes == {}
    trainer.fit()
    assert trainer.run_dir.root == tmp_path / "unnamed"
    done = Trained(0, trainer.run_dir)
    assert done.events()[-1].outcome == "completed"
    assert len(done.series("fvu/layers.0")) == 11  # 44 sequences of 48, four of them are held out
    with torch.no_grad():
        hidden = model(torch.from_numpy(IDS[44:]), output_hidden_states=True).hidden_states[1].flatten(0, 1)
        fvu = trainer.saes["layers.0"](hidden).fvu
    assert done.evaluation(11)["coders"]["layers.0"]["eval_fvu"] == pytest.approx(float(fvu), rel=1e-5)
    assert isinstance(trainer.saes["layers.0"], SparseCoder)


def test_memmap_gives_the_same(config: Any, model: Any, tmp_path: Path) -> None:
    IDS.astype(np.uint16).tofile(tmp_path / "ids.bin")
    for name, data in {
        "memmap": MemmapDataset(tmp_path / "ids.bin", 16),
        "dataset": datasets.Dataset.from_dict({"input_ids": IDS.tolist()}).with_format("torch"),
    }.items():
        Trainer(config(run_name=name, loss_fn="kl"), data, model).fit()
    series = [
        Trained(0, Trainer(config(run_name=n), data, model).run_dir).series("kl_loss") for n in ("memmap", "dataset")
    ]
    assert series[0] == series[1]
    assert len(series[0]) == 11


def test_folder_with_checkpoints_is_not_overwritten(config: Any, model: Any) -> None:
    data = datasets.Dataset.from_dict({"input_ids": IDS.tolist()})
    Trainer(config(), data, model).fit()
    with pytest.raises(ConfigError, match="already holds checkpoints"):
        Trainer(config(), data, model).fit()


@pytest.mark.parametrize("data", [datasets.Dataset.from_dict({"text": ["a"]}), [1, 2], iter([])])
def test_data_without_tokens_is_refused(config: Any, model: Any, data: Any) -> None:
    with pytest.raises(DataError, match="has no column input_ids"):
        Trainer(config(), data, model)


@pytest.mark.parametrize("changes", [{"eval_downstream": True}, {"loss_fn": "ce"}], ids=str)
def test_model_without_its_head_is_refused_where_it_must_predict(
    config: Any, model: Any, changes: dict[str, Any]
) -> None:
    data = datasets.Dataset.from_dict({"input_ids": IDS.tolist()})
    with pytest.raises(ConfigError, match="has no head"):
        Trainer(config(**changes), data, model.base_model)


def test_downstream_metrics_of_a_given_model(config: Any, model: Any) -> None:
    trainer = Trainer(config(eval_downstream=True), datasets.Dataset.from_dict({"input_ids": IDS.tolist()}), model)
    trainer.fit()
    found = evaluate(trainer.saes, model, IDS[-4:]).values["layers.0"]
    assert Trained(0, trainer.run_dir).evaluation(11)["coders"]["layers.0"] == pytest.approx(found, rel=1e-4, abs=1e-6)


def test_fields_about_loading_are_not_used(config: Any, model: Any) -> None:
    values = {**config().model_dump(), "dataset": "x.bin", "memmap_dtype": "uint32", "load_in_8bit": True}
    data = datasets.Dataset.from_dict({"input_ids": IDS.tolist()})
    trainer = Trainer(RunConfig.model_validate(values), data, model)
    assert trainer.cfg.ctx_len == 16
    assert not trainer.cfg.load_in_8bit


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [({"exclude_first": 16}, "leaves nothing of ctx_len = 16"), ({"device": "cuda"}, "is on cpu and device is cuda")],
)
def test_what_does_not_fit_is_one_sentence(config: Any, model: Any, changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        Trainer(config(**changes), datasets.Dataset.from_dict({"input_ids": IDS.tolist()}), model)
