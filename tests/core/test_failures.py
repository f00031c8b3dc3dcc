"""Runs that cannot work end as failed, with a reason that a person understands."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from runs import TrainFunction


def jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize(
    ("changes", "code", "sentence"),
    [
        ({"model": "/no/such/folder"}, "model_error", "does not exist"),
        ({"model": "nobody/no-such-model-xyz"}, "model_error", "no-such-model-xyz"),
        ({"dataset": "/no/such/file.jsonl"}, "data_error", "does not exist"),
        ({"text_column": "body"}, "data_error", "set text_column to one of text"),
        ({"layers": [7]}, "hookpoint_error", "layers 0 to 1"),
        ({"layers": [], "hookpoints": "layers.0.mpl"}, "hookpoint_error", "did you mean layers.0.mlp"),
        ({"k": 200}, "config_error", "128 latents of layers.0"),
        ({"batch_size": 5000}, "data_error", "lower batch_size"),
        ({"exclude_first": 15, "exclude_tokens": list(range(66))}, "data_error", "are excluded"),
    ],
)
def test_reason_is_in_the_events_and_on_stderr(
    train: TrainFunction,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    changes: dict[str, Any],
    code: str,
    sentence: str,
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # read from the environment at import
    done = train(**changes)
    assert done.exit_code in (1, 2)
    last = done.events()[-1]
    assert (last.type, last.outcome, last.reason_code) == ("attempt_finished", "failed", code)
    assert sentence in last.message
    message = capsys.readouterr().err
    assert sentence in message
    assert "Traceback" not in message
    assert done.run_dir.published() == []


def test_empty_and_broken_datasets(train: TrainFunction, tmp_path: Path) -> None:
    for name, rows, sentence in (("empty", [], "is empty"), ("short", [{"text": "kan"}], "shorter than one sequence")):
        last = train(name, dataset=jsonl(tmp_path / f"{name}.jsonl", rows)).events()[-1]
        assert (last.reason_code, sentence in last.message) == ("data_error", True)


def test_folder_without_model(train: TrainFunction, tmp_path: Path) -> None:
    assert "no config.json" in train(model=tmp_path).events()[-1].message


def test_pickled_weights_are_never_loaded(train: TrainFunction, tiny_model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pickled"
    shutil.copytree(tiny_model, folder)
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")
    last = train(model=folder).events()[-1]
    assert (last.reason_code, "safetensors" in last.message) == ("model_error", True)


def test_non_finite_loss_keeps_earlier_checkpoints(train: TrainFunction, monkeypatch: pytest.MonkeyPatch) -> None:
    from sparsify_core.train import step

    original = step.StepSums.finish
    calls: list[int] = []

    def poison(self: step.StepSums) -> tuple[step.StepStats, torch.Tensor]:
        calls.append(1)
        stats, scale = original(self)
        return (stats._replace(fvu=stats.fvu * float("nan")) if len(calls) == 8 else stats), scale

    monkeypatch.setattr(step.StepSums, "finish", poison)
    done = train(save_every=5)
    assert [c.step for c in done.run_dir.published()] == [5]
    assert "at step 8" in done.events()[-1].message


def test_defect_is_a_failed_attempt_and_a_traceback(train: TrainFunction, monkeypatch: pytest.MonkeyPatch) -> None:
    from sparsify_core.train import run

    def broken(*_args: Any) -> None:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr(run, "resolve_hookpoints", broken)
    with pytest.raises(ZeroDivisionError):
        train("broken")


def test_attempt_is_never_written_twice(train: TrainFunction, capsys: pytest.CaptureFixture[str]) -> None:
    train(attempt=3)
    assert train(attempt=3).exit_code == 2
    assert "already made" in capsys.readouterr().err


def test_warnings(train: TrainFunction) -> None:
    events = train(lr_warmup_steps=1000).events()
    assert any("never reaches" in e.message for e in events if e.type == "warning")
