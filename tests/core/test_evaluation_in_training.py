"""Evaluation while training: when it happens, that it disturbs nothing, and that its numbers are `evaluate`'s."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaForCausalLM

from runs import BASE, Trained, TrainFunction, command, flags
from sparsify_core import SparseCoder, evaluate
from sparsify_core.cli import main
from sparsify_core.config import RunConfig
from sparsify_core.data.sequences import load_sequences
from sparsify_core.rundir import RunDir

ATTEMPTS = Path(__file__).parents[1] / "support" / "attempts.py"


def recomputed(done: Trained, step: int) -> dict[str, dict[str, float]]:
    """The numbers of the saved coders, by the library."""
    config = RunConfig.model_validate_json(done.run_dir.config.read_text())
    found = evaluate(
        SparseCoder.load_many(str(done.run_dir.checkpoint(step).root), local=True),
        LlamaForCausalLM.from_pretrained(config.model, dtype=torch.float32),
        load_sequences(config).held_out_tokens(),
        exclude_tokens=config.exclude_tokens,
        exclude_first=config.exclude_first,
    )
    return found.values


def close(numbers: dict[str, dict[str, float]]) -> dict[str, Any]:
    return {name: pytest.approx(values, rel=1e-4, abs=1e-5) for name, values in numbers.items()}


def test_evaluations_between_checkpoints(train: TrainFunction) -> None:
    done = train(eval_every=2, save_every=3)
    steps = [e.step for e in done.events() if e.type == "metrics" and "eval_fvu/layers.0" in e.values]
    assert steps == [2, 3, 4, 6, 8, 9, 10]
    names = [e.name for e in done.events() if e.type == "phase"]
    assert names[2:7] == ["training", "evaluating", "training", "evaluating", "saving"]
    assert done.series("eval_fvu/layers.0")[-1] < done.series("eval_fvu/layers.0")[0]


@pytest.mark.parametrize(
    "changes",
    [
        {"transcode": True, "skip_connection": True},
        {"optimizer": "signum", "lr": 0.003, "k_decay_steps": 6},
        {"activation": "batchtopk", "optimizer": "signum", "lr": 0.003},
        {"loss_fn": "kl", "dead_feature_threshold": 100},
    ],
    ids=str,
)
def test_evaluation_does_not_change_training(train: TrainFunction, changes: dict[str, Any]) -> None:
    changes = {"layers": [0, 1], "save_every": 100, **changes}
    without = train("without", **changes)
    watched = train("watched", eval_every=1, eval_downstream=True, **changes)
    for name in ("layers.0", "layers.1"):
        weights = without.weights(10, name)
        assert all(torch.equal(tensor, weights[key]) for key, tensor in watched.weights(10, name).items())
    for key in ("fvu/layers.0", "l0/layers.1", "dead_frac/layers.1", "k", "kl_loss", "lr"):
        assert watched.series(key) == without.series(key)
    assert len(watched.series("eval_kl/layers.1")) == 10
    assert "eval_kl/layers.1" not in without.events()[-2].model_dump_json()


def test_downstream_numbers_are_those_of_the_library(train: TrainFunction) -> None:
    done = train(eval_downstream=True, layers=[0, 1], init_seeds=[0, 1], exclude_first=1, exclude_tokens=[5])
    evaluation = done.evaluation(10)
    assert evaluation["coders"] == close(recomputed(done, 10))
    assert evaluation["predicted_tokens"] == {"ce": 8 * 15, "kl": 8 * 16}
    for name, numbers in evaluation["coders"].items():
        assert set(evaluation["formulas"]) == set(numbers)
        assert sum(evaluation["density"][name]["counts"]) + evaluation["density"][name]["never"] == 128
        assert [done.series(f"{metric}/{name}")[-1] for metric in numbers] == list(numbers.values())
    saved = next(e for e in done.events() if e.type == "checkpoint_saved")
    assert saved.evaluation == evaluation["coders"]


def test_outputs_without_variance_have_no_fvu(train: TrainFunction, tiny_model: Path, tmp_path: Path) -> None:
    lm = LlamaForCausalLM.from_pretrained(tiny_model)
    with torch.no_grad():
        lm.model.layers[0].mlp.down_proj.weight.zero_()
    shutil.copytree(tiny_model, tmp_path / "silent")
    lm.save_pretrained(tmp_path / "silent")
    changes = {"layers": [], "hookpoints": ["layers.0.mlp", "layers.1.mlp"], "loss_fn": "kl", "save_every": 2}
    done = train(model=tmp_path / "silent", save_best=True, keep_last=1, **changes)
    assert done.exit_code == 0
    assert "eval_fvu" not in done.evaluation(10)["coders"]["layers.0.mlp"]
    assert "eval_fvu" in done.evaluation(10)["coders"]["layers.1.mlp"]


@pytest.mark.integration
def test_several_processes_evaluate_as_one(tiny_model: Path, tiny_text: Path, tmp_path: Path) -> None:
    changes = {"batch_size": 2, "layers": [0, 1], "eval_downstream": True, "eval_every": 4, "exclude_first": 1}
    attempts = [
        {
            "words": [
                *(str(tiny_model), str(tiny_text), "--run_dir", str(tmp_path / name)),
                *flags({**BASE, **changes, "distribute_modules": name == "distributed"}),
            ],
            "port": 29_711 + number,
            "stop_at": None,
        }
        for number, name in enumerate(("replicated", "distributed"))
    ]
    spec = tmp_path / "attempts.json"
    spec.write_text(json.dumps(attempts))
    launcher = command(tiny_model, tiny_text, tmp_path, processes=2)[:5]
    done = subprocess.run([*launcher, str(ATTEMPTS), str(spec)], capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stdout + done.stderr
    for name in ("replicated", "distributed"):
        run = Trained(0, RunDir(tmp_path / name))
        assert run.evaluation(10)["coders"] == close(recomputed(run, 10))
        assert list(run.evaluation(10)["density"]) == ["layers.0", "layers.1"]
        assert len(run.series("eval_kl/layers.1")) == 3


def test_model_without_its_head_is_refused(train: TrainFunction, tiny_model: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_model, tmp_path / "headless")
    LlamaForCausalLM.from_pretrained(tiny_model).model.save_pretrained(tmp_path / "headless")
    last = train(model=tmp_path / "headless", eval_downstream=True).events()[-1]
    assert last.reason_code == "model_error"
    assert "downstream evaluation needs the model's predictions" in last.message
    assert train("without", model=tmp_path / "headless").exit_code == 0


@pytest.mark.parametrize("words", [["--eval_every", "5"], ["--eval_downstream"]])
def test_evaluation_without_held_out_tokens_is_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["gpt2", "text.jsonl", "--eval_tokens", "0", *words]) == 2
    assert f"{words[0].removeprefix('--')} needs held-out tokens" in capsys.readouterr().err


def test_other_evaluations_may_follow_a_checkpoint(train: TrainFunction) -> None:
    shutil.rmtree(train(save_every=4).run_dir.checkpoint(10).root)
    again = train(save_every=4, resume=True, eval_every=1, eval_downstream=True)
    assert again.events(2)[0].resumed_step == 8
    steps = [e.step for e in again.events(2) if e.type == "metrics" and "eval_kl/layers.0" in e.values]
    assert steps == [9, 10]
