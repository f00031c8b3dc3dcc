"""`distribute_modules`: every process trains its own hookpoints on all data, and nothing else changes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from runs import Trained, TrainFunction, torchrun
from sparsify_core.config import RunConfig, SparseCoderConfig
from sparsify_core.errors import ConfigError
from sparsify_core.formats.sparsify import save_coder
from sparsify_core.manifest import verify_checkpoint
from sparsify_core.model.coder import SparseCoder
from sparsify_core.rundir import CheckpointDir, RunDir
from sparsify_core.train.placement import balance, place

HOOKPOINTS = ["layers.0", "layers.0.mlp.up_proj", "layers.1"]
SPREAD = {"layers": [], "hookpoints": HOOKPOINTS, "distribute_modules": True}


@pytest.mark.integration
@pytest.mark.usefixtures("one_core")
def test_owners_equal_one_process_with_the_whole_batch(attempt: Any, train: TrainFunction, tmp_path: Path) -> None:
    cases: dict[str, dict[str, Any]] = {
        "sae": {"exclude_tokens": [5, 9], "exclude_first": 1, "dead_feature_threshold": 100, "auxk_alpha": 0.1},
        "transcoder": {"transcode": True, "skip_connection": True, "init_seeds": [0, 1], "grad_acc_steps": 2},
        "signum": {"optimizer": "signum", "lr": 1e-3, "micro_acc_steps": 2, "dead_feature_threshold": 100},
    }
    torchrun(tmp_path, [attempt(name, **{"lr": 1e-3, **SPREAD, **case}) for name, case in cases.items()])
    for name, case in cases.items():
        changes = {"lr": 1e-3, **SPREAD, **case, "distribute_modules": False}
        one, two = train(f"one-{name}", **changes), Trained(0, RunDir(tmp_path / name))
        step = 10 // case.get("grad_acc_steps", 1)
        assert [e.type for e in two.events()] == [e.type for e in one.events()]
        assert two.events()[-1].outcome == "completed"
        planned = [next(e for e in run.events() if e.type == "training_planned") for run in (one, two)]
        assert planned[0].num_latents == planned[1].num_latents
        measured = {"tokens_per_s", "gpu_memory"}  # of the processes, not of what they learn
        keys = [key for e in one.events() if e.type == "metrics" for key in e.values if key not in measured]
        for key in sorted(set(keys)):
            assert two.series(key) == pytest.approx(one.series(key), rel=1e-4), key
        assert two.evaluation(step)["coders"].keys() == one.evaluation(step)["coders"].keys()
        for coder in one.evaluation(step)["coders"]:
            for key, tensor in one.weights(step, coder).items():
                torch.testing.assert_close(two.weights(step, coder)[key], tensor, atol=2e-4, rtol=1e-3)
        files = [verify_checkpoint(run.run_dir.checkpoint(step))["files"].keys() for run in (one, two)]
        assert files[1] == files[0] | {"training-rank1.safetensors"}


def assert_replicas_are_equal(run_dir: Path) -> None:
    own, other = (torch.load(run_dir / f"rank{rank}.pt", map_location="cpu") for rank in range(2))
    for coder, weights in own.items():
        for key, tensor in weights.items():
            assert torch.equal(tensor, other[coder][key]), (coder, key)


@pytest.mark.integration
@pytest.mark.usefixtures("one_core")
def test_a_replica_without_rows_takes_part(attempt: Any, train: TrainFunction, tmp_path: Path) -> None:
    excluded = 5
    tokens = np.random.default_rng(0).integers(10, 60, (40, 16)).astype(np.uint16)
    order = np.random.default_rng(42).permutation(40)  # as the run shuffles
    # In a step of four sequences the processes take turns: 0 and 2 are the first one's, 1 and 3 the other's.
    for step, empty in enumerate([(3,), (2,), (0, 2), (1, 3), (0, 1), (1, 2)]):
        tokens[order[[4 * step + place for place in empty]]] = excluded
    tokens.tofile(tmp_path / "tokens.bin")
    # The model comes by the second of the hookpoints first.
    changes = {**SPREAD, "exclude_tokens": [excluded], "batch_size": 1, "eval_tokens": 0, "lr": 1e-3}
    cases = {"replicas": False, "owners": True}
    words = [
        attempt(name, **{**changes, "grad_acc_steps": 2, "distribute_modules": owners})
        for name, owners in cases.items()
    ]
    for own in words:
        own["words"][1] = str(tmp_path / "tokens.bin")
    torchrun(tmp_path, words)
    one = train("one", dataset=tmp_path / "tokens.bin", **{**changes, "grad_acc_steps": 4, "distribute_modules": False})
    assert_replicas_are_equal(tmp_path / "replicas")
    for name in cases:
        two = Trained(0, RunDir(tmp_path / name))
        for coder in HOOKPOINTS:
            assert two.series(f"fvu/{coder}") == pytest.approx(one.series(f"fvu/{coder}"), rel=1e-4)
            for key, tensor in one.weights(10, coder).items():
                torch.testing.assert_close(two.weights(10, coder)[key], tensor, atol=2e-4, rtol=1e-3)


@pytest.mark.integration
def test_two_processes_resume_bit_for_bit(attempt: Any, train: TrainFunction, tmp_path: Path) -> None:
    cases: dict[str, dict[str, Any]] = {
        "replicas": {"optimizer": "signum", "lr": 0.003, "layers": [0, 1], "exclude_first": 1},
        "owners": {**SPREAD, "exclude_first": 1, "auxk_alpha": 0.5, "dead_feature_threshold": 128, "k": 1},
        "muon": {**SPREAD, "optimizer": "muon", "transcode": True, "k_decay_steps": 6},
    }
    attempts = []
    for name, case in cases.items():
        attempts.append(attempt(f"{name}-whole", **case))
        attempts.append(attempt(f"{name}-cut", 4, **case))
        attempts.append(attempt(f"{name}-cut", resume=True, **case))
    torchrun(tmp_path, attempts)
    for name, case in cases.items():
        whole, cut = (Trained(0, RunDir(tmp_path / f"{name}-{what}")) for what in ("whole", "cut"))
        assert (cut.events()[-1].outcome, cut.events()[-1].step) == ("stopped", 4)
        assert (cut.events(2)[0].resumed_step, cut.events(2)[-1].outcome) == (4, "completed")
        assert cut.evaluation(10) == whole.evaluation(10)
        files = [verify_checkpoint(run.run_dir.checkpoint(10))["files"] for run in (whole, cut)]
        assert ("training-rank1.safetensors" in files[0]) is ("distribute_modules" in case)
        assert files[0].keys() == files[1].keys()
        different = {file for file in files[0] if files[0][file] != files[1][file]}
        assert different == {"config.json"}  # it holds `resume`
    assert_replicas_are_equal(tmp_path / "replicas-whole")
    last = train("replicas-whole", resume=True, **cases["replicas"], batch_size=2).events(2)[-1]
    assert last.reason_code == "checkpoint_error"
    assert "trained by 2 processes and can only be resumed by as many, not by 1 process" in last.message


@pytest.mark.integration
def test_what_fails_on_another_process_is_reported(attempt: Any, tmp_path: Path) -> None:
    config = SparseCoderConfig(k=4, expansion_factor=4)
    directory = CheckpointDir(tmp_path / "old").coder("layers.0")  # rank 1 misses its layers.1
    directory.root.mkdir(parents=True)
    save_coder(directory, SparseCoder(32, config), config)
    changes = {"layers": [0, 1], "distribute_modules": True, "finetune": str(tmp_path / "old")}
    torchrun(tmp_path, [attempt("run", **changes)], fails=True)
    last = Trained(0, RunDir(tmp_path / "run")).events()[-1]
    assert (last.outcome, last.reason_code) == ("failed", "checkpoint_error")
    assert "has no coder layers.1" in last.message


def test_hookpoints_are_shared_out_by_work() -> None:
    assert balance({"a": 1, "b": 1, "c": 1, "d": 1, "e": 1}, 2) == {"a": 0, "b": 1, "c": 0, "d": 1, "e": 0}
    assert balance({"a": 1, "b": 9, "c": 2, "d": 3}, 2) == {"a": 0, "b": 1, "c": 0, "d": 0}
    assert sorted(balance({"a": 1, "b": 9, "c": 0}, 3).values()) == [0, 1, 2]


def test_one_process_is_refused(train: TrainFunction) -> None:
    last = train(distribute_modules=True).events()[-1]
    assert last.reason_code == "config_error"
    assert "only one process" in last.message


def test_fewer_hookpoints_than_processes_are_refused() -> None:
    config = RunConfig(model="m", dataset="d", distribute_modules=True)
    with pytest.raises(ConfigError, match="each of the 3 processes, but there are 2: start fewer"):
        place(config, {"a": (8, 8), "b": (8, 16)}, ["a", "b"], 3)
