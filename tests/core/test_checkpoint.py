"""Checkpoints: complete or absent, verified, pruned."""

import json
import shutil
from collections import namedtuple
from pathlib import Path

import pytest
import torch

from runs import TrainFunction
from sparsify_core.errors import CheckpointError
from sparsify_core.formats.sparsify import load_coder
from sparsify_core.manifest import file_sha256, verify_checkpoint
from sparsify_core.rundir import CheckpointDir


def test_files_and_manifest(train: TrainFunction) -> None:
    done = train()
    checkpoint = done.run_dir.checkpoint(10)
    manifest = verify_checkpoint(checkpoint)
    assert (manifest["step"], manifest["tokens_seen"]) == (10, 640)
    names = {p.relative_to(checkpoint.root).as_posix() for p in checkpoint.root.rglob("*") if p.is_file()}
    assert names == {*manifest["files"], "manifest.json"}
    assert "layers.0/inspect.safetensors" in names
    event = next(e for e in done.events() if e.type == "checkpoint_saved")
    assert done.run_dir.root / event.path == checkpoint.root
    assert event.manifest_sha256 == file_sha256(checkpoint.manifest)
    assert event.evaluation == done.evaluation(10)["coders"]


def test_cfg_json_has_upstreams_keys_with_num_latents_resolved(train: TrainFunction) -> None:
    values = json.loads(train().run_dir.checkpoint(10).coder("layers.0").config.read_text())
    assert list(values) == [
        "activation",
        "expansion_factor",
        "normalize_decoder",
        "num_latents",
        "k",
        "multi_topk",
        "skip_connection",
        "transcode",
        "d_in",
    ]
    assert (values["num_latents"], values["d_in"]) == (128, 32)


def test_d_out_is_written_where_it_differs(train: TrainFunction) -> None:
    done = train(transcode=True, layers=[], hookpoints="layers.0.mlp.up_proj")
    directory = done.run_dir.checkpoint(10).coder("layers.0.mlp.up_proj")
    assert json.loads(directory.config.read_text())["d_out"] == 64
    assert load_coder(directory.root).d_out == 64


@pytest.mark.parametrize("damage", ["flip", "delete", "truncate"])
def test_damage_is_noticed(train: TrainFunction, damage: str) -> None:
    checkpoint = train().run_dir.checkpoint(10)
    weights = checkpoint.coder("layers.0").weights
    content = bytearray(weights.read_bytes())
    if damage == "flip":
        content[-1] ^= 1
        weights.write_bytes(content)
    elif damage == "truncate":
        weights.write_bytes(content[:-8])
    else:
        weights.unlink()
    with pytest.raises(CheckpointError, match=r"layers\.0/sae\.safetensors"):
        verify_checkpoint(checkpoint)


def test_not_a_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no manifest\.json"):
        verify_checkpoint(CheckpointDir(tmp_path))


def test_keep_last_deletes_older_ones(train: TrainFunction) -> None:
    done = train(save_every=3, keep_last=2)
    assert [c.step for c in done.run_dir.published()] == [9, 10]
    assert not list(done.run_dir.checkpoints.glob(".tmp*"))


def test_leftover_of_a_killed_attempt_is_replaced(train: TrainFunction) -> None:
    first = train()
    first.run_dir.checkpoint(10).manifest.write_text("{}")
    leftover = first.run_dir.staging(10).root
    leftover.mkdir()
    (leftover / "half").write_text("x")
    again = train()
    assert again.events(2)[-1].outcome == "completed"
    names = verify_checkpoint(again.run_dir.checkpoint(10))["files"]
    assert "half" not in names
    assert not leftover.exists()


def test_failed_save_keeps_the_previous_checkpoint(train: TrainFunction, monkeypatch: pytest.MonkeyPatch) -> None:
    from sparsify_core.train import checkpoint

    write_manifest = checkpoint.write_manifest

    def fail_later(directory: CheckpointDir, *, step: int, tokens_seen: int, config_sha256: str) -> None:
        if step == 10:
            raise OSError(28, "No space left on device")
        write_manifest(directory, step=step, tokens_seen=tokens_seen, config_sha256=config_sha256)

    monkeypatch.setattr(checkpoint, "write_manifest", fail_later)
    done = train(save_every=6, keep_last=1)
    assert done.exit_code == 1
    assert [c.step for c in done.run_dir.published()] == [6]
    verify_checkpoint(done.run_dir.checkpoint(6))
    assert (done.events()[-1].outcome, done.events()[-1].reason_code) == ("failed", "disk_full")


def test_full_disk_is_noticed_before_writing(
    train: TrainFunction, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage(10**9, 10**9, 1000))
    done = train()
    assert done.exit_code == 1
    assert done.run_dir.published() == []
    assert done.events()[-1].reason_code == "disk_full"
    assert "make room" in capsys.readouterr().err


@pytest.mark.parametrize("optimizer", ["adam", "signum"])
def test_saving_does_not_change_training(train: TrainFunction, optimizer: str) -> None:
    often = train("often", save_every=2, optimizer=optimizer)
    once = train("once", optimizer=optimizer)
    assert often.series("fvu/layers.0") == once.series("fvu/layers.0")
    for name, tensor in once.weights(10).items():
        assert torch.equal(tensor, often.weights(10)[name])


def test_existing_run_is_not_overwritten_by_the_bare_command_line(train: TrainFunction) -> None:
    from sparsify_core.cli import parse
    from sparsify_core.errors import ConfigError

    root = train("mine").run_dir.root
    with pytest.raises(ConfigError, match="already holds checkpoints"):
        parse(["m", "d", "--save_dir", str(root.parent), "--run_name", "mine"])


def test_loading_something_else(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no cfg\.json"):
        load_coder(tmp_path)
