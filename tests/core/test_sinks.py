"""Metrics in TensorBoard's files and at W&B."""

import json
import os
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from runs import Trained, TrainFunction, command
from sparsify_core.config import RunConfig
from sparsify_core.rundir import RunDir

PACKAGES = Path(__file__).parents[1] / "support" / "packages"


def read_tensorboard(file: Path) -> list[Any]:
    """The records of an event file: length, checksum, message, checksum."""
    from tensorboardX.proto.event_pb2 import Event

    content, events = file.read_bytes(), []
    while content:
        (length,) = struct.unpack("<Q", content[:8])
        events.append(Event.FromString(content[12 : 12 + length]))
        content = content[16 + length :]
    return events


def scalars(file: Path) -> dict[tuple[str, int], float]:
    events = read_tensorboard(file)
    return {(value.tag, event.step): value.simple_value for event in events for value in event.summary.value}


def logged(done: Trained, attempt: int = 1) -> dict[tuple[str, int], float]:
    events = [event for event in done.events(attempt) if event.type == "metrics"]
    return {(key, event.step): value for event in events for key, value in event.values.items()}


def test_tensorboard_gets_what_the_event_file_gets(train: TrainFunction) -> None:
    done = train(log_to_tensorboard=True, save_every=4, log_every=2)
    (file,) = done.run_dir.tensorboard.iterdir()
    found, expected = scalars(file), logged(done)
    assert ("eval_fvu/layers.0", 4) in found
    assert ("fvu/layers.0", 2) in found
    assert found == pytest.approx(expected, rel=1e-6)


def test_tensorboard_hides_what_is_trained_again(train: TrainFunction) -> None:
    first = train(log_to_tensorboard=True, save_every=4, keep_last=9)
    for checkpoint in first.run_dir.published():
        if checkpoint.step > 4:
            checkpoint.manifest.unlink()
    second = train(log_to_tensorboard=True, save_every=4, keep_last=9, resume=True)
    _, file = sorted(second.run_dir.tensorboard.iterdir(), key=lambda path: path.suffix)
    assert [event.step for event in read_tensorboard(file) if event.HasField("session_log")] == [5]
    assert scalars(file) == pytest.approx(logged(second, 2), rel=1e-6)


@pytest.mark.parametrize(("flag", "package"), [("log_to_wandb", "wandb"), ("log_to_tensorboard", "tensorboardX")])
def test_missing_package(
    train: TrainFunction, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, flag: str, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    done = train(model=tmp_path / "no-model", **{flag: True})
    assert done.exit_code == 2
    assert done.events()[-1].reason_code == "config_error"
    assert f"{flag} needs the package {package}: pip install {package}" in done.events()[-1].message


def test_folder_that_wandb_left_behind_is_no_package(
    train: TrainFunction, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "wandb").mkdir()
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.setattr(sys, "path_importer_cache", {})
    assert "needs the package wandb" in train(log_to_wandb=True).events()[-1].message
    monkeypatch.delitem(sys.modules, "wandb")


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[], list[dict[str, Any]]]:
    """Puts the stand-in in the place of W&B's package; returns what tells the calls that it got."""
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    monkeypatch.syspath_prepend(PACKAGES)
    file = tmp_path / "calls.jsonl"
    file.touch()
    for name, value in {"WANDB_CALLS": str(file), "HF_TOKEN": "hf_secret", "WANDB_API_KEY": "secret"}.items():
        monkeypatch.setenv(name, value)

    def read() -> list[dict[str, Any]]:
        assert "secret" not in file.read_text()
        return [json.loads(line) for line in file.read_text().splitlines()]

    return read


def test_wandb_gets_the_value_of_every_third_step(
    tiny_model: Path, tiny_text: Path, tmp_path: Path, calls: Callable[[], list[dict[str, Any]]]
) -> None:
    options = {"wandb_log_frequency": 3, "run_name": "first", "save_every": 5}
    words = command(tiny_model, tiny_text, tmp_path / "run", log_to_wandb=True, **options)
    path = os.pathsep.join(filter(None, [str(PACKAGES), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": path, "WANDB_PROJECT": "mine", "WANDB_ENTITY": "us"}
    subprocess.run(words, env=environment, check=True)
    done = Trained(0, RunDir(tmp_path / "run"))
    first, *logs, last = calls()
    arguments = first["arguments"]
    assert (arguments["project"], arguments["entity"], arguments["name"]) == ("mine", "us", "first")
    config = json.loads(done.run_dir.config.read_text())
    local = {"model": tiny_model.name, "dataset": tiny_text.name, "save_dir": Path(config["save_dir"]).name}
    assert arguments["config"] == config | local
    assert str(tiny_model.parent) not in json.dumps(arguments["config"])
    sent = {(key, call["step"]): value for call in logs for key, value in call["data"].items()}
    due = {place for place in logged(done) if place[1] % 3 == 0 or place[0].startswith("eval_")}
    assert {step for _, step in due} == {3, 5, 6, 9, 10}
    assert sent == {place: value for place, value in logged(done).items() if place in due}
    assert last == {"call": "finish", "exit_code": 0}


def test_failed_run_is_finished_as_failed(train: TrainFunction, calls: Callable[[], list[dict[str, Any]]]) -> None:
    assert train(log_to_wandb=True, layers=[7]).exit_code == 1
    first, last = calls()
    assert first["arguments"]["project"] == "sparsify"
    assert last == {"call": "finish", "exit_code": 1}


def test_wandb_that_breaks_costs_a_warning(
    train: TrainFunction, calls: Callable[[], list[dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_FAILS_AT", "4")
    done = train(log_to_wandb=True)
    assert done.exit_code == 0
    assert [call["step"] for call in calls() if call["call"] == "log"] == [1, 2, 3]
    (warning,) = [event.message for event in done.events() if event.type == "warning"]
    assert "log_to_wandb failed at step 4 and is switched off" in warning
    assert "the network is gone" in warning
    assert len(done.series("fvu/layers.0")) == 10


def test_wandb_that_cannot_start_is_told_at_once(
    train: TrainFunction, calls: Callable[[], list[dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_REFUSES", "1")
    done = train(log_to_wandb=True)
    assert (done.exit_code, calls()) == (2, [])
    assert "(api_key not configured): run `wandb login`" in done.events()[-1].message


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"wandb_log_frequency": 3}, "has no effect without log_to_wandb"),
        ({"wandb_log_frequency": 3, "log_to_wandb": True, "log_every": 2}, "must be a multiple of log_every = 2"),
    ],
)
def test_frequency_that_means_nothing(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValidationError, match=sentence):
        RunConfig(**changes)
