"""Options of upstream, in whole runs."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from runs import TrainFunction
from sparsify_core.formats.sparsify import load_coder


@pytest.mark.parametrize("optimizer", ["adam", "signum"])
def test_micro_batches_change_nothing(train: TrainFunction, optimizer: str) -> None:
    changes = {"optimizer": optimizer, "lr": 1e-3, "exclude_first": 1}
    whole = train("whole", **changes)
    cut = train("cut", micro_acc_steps=3, **changes)
    np.testing.assert_allclose(cut.series("fvu/layers.0"), whole.series("fvu/layers.0"), rtol=1e-3)
    assert cut.series("fvu/layers.0")[0] == pytest.approx(whole.series("fvu/layers.0")[0], rel=1e-6)


@pytest.mark.parametrize("transcode", [False, True])
def test_skip_connection_is_trained_saved_and_loaded(train: TrainFunction, transcode: bool) -> None:
    done = train(skip_connection=True, transcode=transcode)
    skip = done.weights(10)["W_skip"]
    assert skip.shape == (32, 32)
    assert skip.abs().sum() > 0
    assert torch.equal(load_coder(done.run_dir.checkpoint(10).coder("layers.0").root).W_skip, skip)


def test_auxk_revives_dead_latents(train: TrainFunction) -> None:
    changes = {"dead_feature_threshold": 256, "max_tokens": 6400, "k": 1, "num_latents": 256, "save_every": 100}
    without = train("without", **changes)
    revived = train("with", auxk_alpha=0.5, **changes)
    assert revived.series("auxk/layers.0")[0] == 0
    assert max(revived.series("auxk/layers.0")) > 0
    assert revived.series("dead_frac/layers.0")[-1] < without.series("dead_frac/layers.0")[-1]


def test_multi_topk_is_logged_and_better_than_k(train: TrainFunction) -> None:
    done = train(multi_topk=True, max_tokens=2560)
    assert done.series("multi_topk_fvu/layers.0")[-1] < done.series("fvu/layers.0")[-1]
    assert done.series("l0/layers.0")[0] <= 4


def test_groupmax_run(train: TrainFunction) -> None:
    done = train(activation="groupmax", max_tokens=2560)
    fvu = done.series("fvu/layers.0")
    assert fvu[-1] < 0.9 * fvu[0]
    coder = load_coder(done.run_dir.checkpoint(40).coder("layers.0").root)
    assert coder.activation == "groupmax"


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"activation": "groupmax", "k": 5}, "divisible by k = 5"),
        ({"multi_topk": True, "k": 64}, "needs 4k = 256 latents"),
    ],
)
def test_widths_that_do_not_fit(train: TrainFunction, changes: dict[str, object], sentence: str) -> None:
    last = train(**changes).events()[-1]
    assert last.reason_code == "config_error"
    assert sentence in last.message


def test_best_checkpoint_is_kept(train: TrainFunction, monkeypatch: pytest.MonkeyPatch) -> None:
    from sparsify_core.train import saving

    original = saving.measure
    fvus = iter([0.9, 0.1, 0.5, 0.4, 0.3])

    def scripted(*args: object, **kwargs: object):
        evaluation = original(*args, **kwargs)
        evaluation.values["layers.0"]["eval_fvu"] = next(fvus)
        return evaluation

    monkeypatch.setattr(saving, "measure", scripted)
    done = train(save_every=2, keep_last=1, save_best=True)
    assert [c.step for c in done.run_dir.published()] == [4, 10]


def test_k_decays_and_the_saved_k_is_the_target(train: TrainFunction) -> None:
    done = train(k_decay_steps=4, save_every=2)
    assert done.series("k")[:6] == [128, 97, 66, 35, 4, 4]
    for step in (8, 10):
        assert json.loads(done.run_dir.checkpoint(step).coder("layers.0").config.read_text())["k"] == 4
    assert done.series("eval_l0/layers.0")[0] <= 4


def test_groupmax_k_decays_through_divisors(train: TrainFunction) -> None:
    done = train(k_decay_steps=4, activation="groupmax")
    assert done.series("k")[:6] == [128, 128, 128, 64, 4, 4]
    assert json.loads(done.run_dir.checkpoint(10).coder("layers.0").config.read_text())["k"] == 4


def test_multi_topk_k_decays_to_all_latents_at_most(train: TrainFunction) -> None:
    done = train(k_decay_steps=4, multi_topk=True)
    assert done.series("k")[:6] == [128, 97, 66, 35, 4, 4]


def test_finetune_starts_from_given_weights(train: TrainFunction) -> None:
    first = train("first", max_tokens=2560)
    second = train("second", max_tokens=64, finetune=str(first.run_dir.checkpoint(40).root), lr=1e-9)
    assert second.series("fvu/layers.0")[0] < 0.8 * first.series("fvu/layers.0")[0]
    torch.testing.assert_close(second.weights(1)["b_dec"], first.weights(40)["b_dec"], atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"num_latents": 64}, "W_dec is [128, 32], expected [64, 32]"),
        ({"layers": [1]}, "has no coder layers.1"),
        ({"transcode": True}, "layers.0 holds an autoencoder: set transcode to false"),
    ],
)
def test_finetune_that_does_not_fit(train: TrainFunction, changes: dict[str, object], sentence: str) -> None:
    first = train("first", max_tokens=64)
    last = train("second", finetune=str(first.run_dir.checkpoint(1).root), **changes).events()[-1]
    assert last.reason_code == "checkpoint_error"
    assert sentence in last.message


def test_finetune_from_the_hub(train: TrainFunction, hub: Path) -> None:
    first = train("first", layers=[0, 1], max_tokens=640).run_dir.checkpoint(10).root
    shutil.copytree(first, hub)
    second = train("second", max_tokens=64, finetune="owner/saes", k=2, lr=1e-9)
    torch.testing.assert_close(second.weights(1)["b_dec"], load_file(first / "layers.0" / "sae.safetensors")["b_dec"])
    assert json.loads((second.run_dir.checkpoint(1).root / "layers.0" / "cfg.json").read_text())["k"] == 2
    downloaded = [p.relative_to(hub.parent / "snapshot").as_posix() for p in (hub.parent / "snapshot").rglob("*.*")]
    assert sorted(downloaded) == ["layers.0", "layers.0/cfg.json", "layers.0/sae.safetensors"]
    last = train("third", finetune="owner/saes", hookpoints="layers.1.mlp", layers=[]).events()[-1]
    assert "finetune = owner/saes has no coder layers.1.mlp" in last.message


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("nobody/no-such-coders", "repository that can be read from the Hugging Face Hub"),
        ("owner/-saes-", "repository that can be read from the Hugging Face Hub"),
        ("./missing", "does not exist: give a folder, or a Hub id"),
        ("missing", "does not exist: give a folder, or a Hub id"),
    ],
)
def test_finetune_from_nowhere(
    train: TrainFunction, monkeypatch: pytest.MonkeyPatch, source: str, sentence: str
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    last = train(finetune=source).events()[-1]
    assert last.reason_code == "checkpoint_error"
    assert sentence in last.message
