"""`cache_activations`: training from a cache on disk is training with the live model, bit for bit."""

import os
import shutil
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from transformers import AutoModel

from runs import Trained, TrainFunction, torchrun
from sparsify_core import SaeConfig, TrainConfig, Trainer
from sparsify_core.activation_cache import write
from sparsify_core.activation_cache.layout import CacheDir
from sparsify_core.activation_cache.read import _runs
from sparsify_core.config import RunConfig
from sparsify_core.data.library import MemmapDataset
from sparsify_core.data.sequences import load_sequences
from sparsify_core.manifest import verify_checkpoint
from sparsify_core.rundir import RunDir
from sparsify_core.train import trainer


def phases(run: Trained, attempt: int = 1) -> list[str]:
    return [event.name for event in run.events(attempt) if event.type == "phase"]


def told(run: Trained) -> list[str]:
    """Kinds of events but those that come when the device is ready."""
    return [event.type for event in run.events() if event.type not in ("phase", "step_timed")]


def caches(folder: Path) -> list[CacheDir]:
    return [CacheDir(path.parent) for path in sorted(folder.glob("*/manifest.json"))]


def assert_same_checkpoint(one: RunDir, other: RunDir, step: int) -> None:
    files = [verify_checkpoint(run.checkpoint(step))["files"] for run in (one, other)]
    assert files[0].keys() == files[1].keys()
    # The configuration names the cache and says `resume`; every weight, moment and measured number is the same.
    assert {name for name in files[0] if files[0][name] != files[1][name]} <= {"config.json"}


CASES: dict[str, dict[str, Any]] = {
    "kept rows": {"optimizer": "signum", "lr": 0.003, "exclude_first": 1, "exclude_tokens": [5, 9]},
    "transcoder": {"transcode": True, "skip_connection": True, "hookpoints": ["layers.*.mlp"], "layers": []},
    "accumulation": {"grad_acc_steps": 2, "batch_size": 2, "micro_acc_steps": 2, "init_seeds": [0, 1]},
    "epochs": {"num_epochs": 3, "max_examples": 30, "max_tokens": 1280},
    "batchtopk": {"activation": "batchtopk"},
    "half precision": {"dtype": "bfloat16", "layers": [1]},
    "stream": {"streaming": True},
    "first batch": {"upstream_compat": True, "grad_acc_steps": 2},
}


@pytest.mark.parametrize("changes", CASES.values(), ids=CASES)
def test_it_trains_as_the_live_model_does(train: TrainFunction, tmp_path: Path, changes: dict[str, Any]) -> None:
    live = train("live", **changes)
    runs = [train(name, cache_activations=tmp_path / "cache", **changes) for name in ("writes", "reads")]
    assert "caching activations" in phases(runs[0])
    assert "caching activations" not in phases(runs[1])
    last = live.run_dir.published()[-1].step
    for run in runs:
        assert told(run) == told(live)
        for key in next(e for e in live.events() if e.type == "metrics").values.keys() - {"tokens_per_s"}:
            assert run.series(key) == live.series(key), key
        assert_same_checkpoint(live.run_dir, run.run_dir, last)


def test_it_holds_what_the_model_computes(
    train: TrainFunction, tmp_path: Path, tiny_model: Path, tiny_text: Path
) -> None:
    changes = {"dtype": "bfloat16", "layers": [0, 1], "transcode": True, "num_epochs": 2, "max_examples": 20}
    train(cache_activations=tmp_path / "cache", **changes)
    (cache,) = caches(tmp_path / "cache")
    config = RunConfig(
        model=str(tiny_model), dataset=str(tiny_text), ctx_len=16, max_examples=20, max_tokens=640, eval_tokens=128
    )
    sequences = load_sequences(config)
    rows = sequences.train[: len(set(sequences.train.tolist()))]  # the first epoch
    model = AutoModel.from_pretrained(tiny_model, dtype=torch.bfloat16)
    with torch.no_grad():
        hidden = model(torch.from_numpy(sequences.rows.take(rows)), output_hidden_states=True).hidden_states
    for name, expected in {
        "layers.0.input": hidden[0],
        "layers.0.output": hidden[1],
        "layers.1.input": hidden[1],
    }.items():
        stored = torch.from_file(str(cache.array(name)), size=expected.numel(), dtype=torch.bfloat16)
        torch.testing.assert_close(stored.view_as(expected), expected, atol=0, rtol=0)
    assert cache.array("layers.1.output").stat().st_size == len(rows) * 16 * 32 * 2


def test_training_does_not_run_the_model(tiny_model: Path, tmp_path: Path, one_core: None) -> None:
    model, shapes = AutoModel.from_pretrained(tiny_model, dtype=torch.float32), []
    model.register_forward_pre_hook(
        lambda _, args, kwargs: shapes.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    (np.arange(40 * 16) % 60).astype(np.uint16).tofile(tmp_path / "tokens.bin")
    tokens = MemmapDataset(tmp_path / "tokens.bin", 16)
    for name in ("first", "second"):
        shapes.clear()
        config = TrainConfig(
            SaeConfig(k=4, expansion_factor=4),
            batch_size=4,
            layers=[0],
            eval_tokens=0,
            cache_activations=str(tmp_path / "cache"),
            save_dir=str(tmp_path),
            run_name=name,
        )
        Trainer(config, tokens, model).fit()
        assert [shape for shape in shapes if shape != (1, 4)] == [(4, 16)] * (10 if name == "first" else 0)
    first, second = (RunDir(tmp_path / name) for name in ("first", "second"))
    assert_same_checkpoint(first, second, 10)


def test_resumed_runs_are_bit_equal(train: TrainFunction, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changes: dict[str, Any] = {"num_epochs": 2, "max_examples": 30, "exclude_first": 1, "optimizer": "signum"}
    cached = {"cache_activations": tmp_path / "cache", **changes}
    whole = train("whole", **changes)
    original = trainer.Trainer._train_step

    def stopping(self: trainer.Trainer, number: int) -> Any:
        if number == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self, number)

    for name, before, after in (
        ("both", cached, cached),
        ("then live", cached, changes),
        ("live first", changes, cached),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(trainer.Trainer, "_train_step", stopping)
            assert train(name, **before).events()[-1].outcome == "stopped"
        run = train(name, resume=True, **after)
        assert run.events(2)[0].resumed_step == 4
        assert_same_checkpoint(whole.run_dir, run.run_dir, whole.run_dir.published()[-1].step)


@pytest.mark.integration
@pytest.mark.usefixtures("one_core")
def test_two_processes_write_and_read_together(
    attempt: Callable[..., dict[str, Any]], train: TrainFunction, tmp_path: Path
) -> None:
    spread = {"layers": [], "hookpoints": ["layers.0", "layers.0.mlp.up_proj", "layers.1"], "distribute_modules": True}
    cases: dict[str, dict[str, Any]] = {
        "replicas": {"layers": [0, 1], "exclude_first": 1, "num_epochs": 2, "max_examples": 30},
        "owners": {**spread, "exclude_tokens": [5, 9], "grad_acc_steps": 2},
        "transcoders": {**spread, "transcode": True},
    }
    attempts = []
    for name, case in cases.items():
        cached = {"cache_activations": tmp_path / f"{name}-cache", **case}
        attempts += [attempt(f"{name}-live", **case), attempt(f"{name}-writes", **cached)]
        attempts += [attempt(f"{name}-cut", 2, **cached), attempt(f"{name}-cut", resume=True, **cached)]
    torchrun(tmp_path, attempts)
    for name in cases:
        live, writes, cut = (Trained(0, RunDir(tmp_path / f"{name}-{what}")) for what in ("live", "writes", "cut"))
        step = live.run_dir.published()[-1].step
        assert "caching activations" in phases(writes)
        assert "caching activations" not in phases(cut)
        assert cut.events(2)[0].resumed_step == 2
        assert_same_checkpoint(live.run_dir, writes.run_dir, step)
        assert_same_checkpoint(live.run_dir, cut.run_dir, step)
    # One process finds there what two have written.
    alone = train("alone", cache_activations=tmp_path / "replicas-cache", **cases["replicas"])
    assert "caching activations" not in phases(alone)


def test_one_cache_serves_all_runs_that_need_no_more(train: TrainFunction, tmp_path: Path, tiny_model: Path) -> None:
    folder, moved = tmp_path / "cache", tmp_path / "moved"
    shutil.copytree(tiny_model, moved)
    train("first", cache_activations=folder, layers=[0, 1], transcode=True, num_epochs=2)
    fits: dict[str, dict[str, Any]] = {
        "autoencoder": {},
        "fewer": {"layers": [1], "max_tokens": 320},
        "exclude": {"exclude_first": 2, "batch_size": 3},
        "path": {"model": moved},
        "head": {"eval_downstream": True},
    }
    for name, changes in fits.items():
        run = train(name, cache_activations=folder, **changes)
        assert "caching activations" not in phases(run), name
        last = run.run_dir.published()[-1].step
        live = train(f"{name} live", **changes)
        for coder in live.evaluation(last)["coders"]:
            torch.testing.assert_close(run.weights(last, coder), live.weights(last, coder), atol=1e-5, rtol=1e-4)
    assert len(caches(folder)) == 1
    other = load_file(moved / "model.safetensors")
    other["model.layers.0.mlp.up_proj.weight"] += 1e-3
    save_file(other, moved / "model.safetensors", {"format": "pt"})
    others: dict[str, dict[str, Any]] = {
        "weights": {"model": moved},
        "hookpoint": {"layers": [], "hookpoints": ["layers.0.mlp"]},
        "dtype": {"dtype": "bfloat16"},
        "length": {"ctx_len": 8},
        "tokens": {"max_tokens": 1600},
    }
    for number, (name, changes) in enumerate(others.items(), start=2):
        assert "caching activations" in phases(train(name, cache_activations=folder, **changes)), name
        assert len(caches(folder)) == number


def test_a_stop_while_writing_is_taken_up_again(
    train: TrainFunction, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    firsts: list[int] = []
    original = write.Writer.add

    def stopping(self: write.Writer, tap: Any, input_ids: torch.Tensor, first: int) -> None:
        firsts.append(first)
        original(self, tap, input_ids, first)
        if len(firsts) == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(write.Writer, "add", stopping)
    live = train("live")
    first = train("run", cache_activations=tmp_path / "cache")
    assert (first.exit_code, first.events()[-1].outcome, first.events()[-1].step) == (0, "stopped", 0)
    assert first.run_dir.published() == []
    run = train("run", cache_activations=tmp_path / "cache", resume=True)
    assert firsts == list(range(0, 40, 4))  # nothing twice
    assert_same_checkpoint(live.run_dir, run.run_dir, 10)


def test_a_write_that_broke_off_is_made_good(
    train: TrainFunction, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = write.Writer.add

    def breaking(self: write.Writer, tap: Any, input_ids: torch.Tensor, first: int) -> None:
        if first == 12:
            raise MemoryError
        original(self, tap, input_ids, first)

    live = train("live")
    with monkeypatch.context() as patch:
        patch.setattr(write.Writer, "add", breaking)
        with pytest.raises(MemoryError):
            train("broken", cache_activations=tmp_path / "cache")
    (cache,) = caches(tmp_path / "cache")
    assert_same_checkpoint(live.run_dir, train("again", cache_activations=tmp_path / "cache").run_dir, 10)
    os.truncate(cache.array("layers.0.output"), 100)
    mended = train("mended", cache_activations=tmp_path / "cache")
    assert "caching activations" in phases(mended)
    assert_same_checkpoint(live.run_dir, mended.run_dir, 10)
    os.truncate(cache.root / "sequences.bin", 16)
    assert_same_checkpoint(live.run_dir, train("hashes", cache_activations=tmp_path / "cache").run_dir, 10)
    cache.manifest.write_text("{")
    assert_same_checkpoint(live.run_dir, train("last", cache_activations=tmp_path / "cache").run_dir, 10)


def test_a_folder_that_is_deleted_while_it_is_written_ends_the_run_with_a_reason(
    train: TrainFunction, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = write.Writer.add

    def deleting(self: write.Writer, tap: Any, input_ids: torch.Tensor, first: int) -> None:
        original(self, tap, input_ids, first)
        if first == 12:
            shutil.rmtree(tmp_path / "cache")

    monkeypatch.setattr(write.Writer, "add", deleting)
    last = train(cache_activations=tmp_path / "cache").events()[-1]
    assert last.reason_code == "data_error"
    assert "was deleted while it was written: start the run again" in last.message


def test_a_cache_that_another_run_writes_is_waited_for(train: TrainFunction, tmp_path: Path) -> None:
    train("first", cache_activations=tmp_path / "cache")
    (cache,) = caches(tmp_path / "cache")
    complete = cache.manifest.read_bytes()
    cache.manifest.unlink()
    held = write.lock(cache)
    assert held is not None
    assert write.lock(cache) is None

    def finish() -> None:
        cache.manifest.write_bytes(complete)
        held.close()

    timer = threading.Timer(3.0, finish)
    timer.start()
    run = train("second", cache_activations=tmp_path / "cache")
    timer.join()
    assert "waiting for another run to cache the activations" in phases(run)
    assert "caching activations" not in phases(run)
    assert run.events()[-1].outcome == "completed"


def test_the_size_is_told_before_and_a_disk_without_room_is_refused(
    train: TrainFunction, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {"layers": [0, 1], "cache_activations": tmp_path / "cache", "max_tokens": 2560}
    told = [event.detail for event in train("roomy", **changes).events() if event.type == "phase"]
    size = 2 * 2560 * 32 * 4
    assert f"activations of 2 hookpoints x 2,560 tokens take {size / 2**20:.1f} MiB" in told
    (cache,) = caches(tmp_path / "cache")
    assert sum(cache.array(f"layers.{n}.output").stat().st_size for n in (0, 1)) == size
    shutil.rmtree(cache.root)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=size - 1))
    last = train("full", **changes).events()[-1]
    assert last.reason_code == "disk_full"
    assert "activations of 2 hookpoints x 2,560 tokens take 0.6 MiB, but the disk of" in last.message
    assert caches(tmp_path / "cache") == []


def test_end_to_end_losses_and_unusable_folders_are_refused(train: TrainFunction, tmp_path: Path) -> None:
    for loss in ("ce", "kl"):
        with pytest.raises(ValidationError, match=f"cache_activations works with loss_fn fvu, not {loss}"):
            RunConfig(loss_fn=loss, cache_activations="x")
    (tmp_path / "file").write_text("")
    last = train(cache_activations=tmp_path / "file").events()[-1]
    assert last.reason_code == "config_error"
    assert f"cache_activations = {tmp_path / 'file'} cannot be used" in last.message


def test_tokens_of_another_model_are_refused_before_the_model_runs(train: TrainFunction, tmp_path: Path) -> None:
    np.full(2000, 999, dtype=np.uint16).tofile(tmp_path / "tokens.bin")
    last = train(dataset=tmp_path / "tokens.bin", cache_activations=tmp_path / "cache").events()[-1]
    assert last.reason_code == "data_error"
    assert "token id 999" in last.message


def test_reads_are_cut_into_adjacent_parts() -> None:
    slots = np.array([4, 5, 6, 7, 9, 3, 4, 4])
    assert list(_runs(slots, 3)) == [(0, 3), (3, 1), (4, 1), (5, 2), (7, 1)]
    assert list(_runs(slots[:1], 1)) == [(0, 1)]
