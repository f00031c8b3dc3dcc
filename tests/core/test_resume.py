"""A run that goes on behind a checkpoint ends exactly where an uninterrupted one does."""

from typing import Any

import pytest
import torch

from runs import Trained, TrainFunction
from sparsify_core.train import trainer


def stop_at(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Have the trainer find a stop request behind this step."""
    original = trainer.Trainer._train_step

    def stopping(self: trainer.Trainer, number: int) -> Any:
        if number + 1 == step:
            self.stop._asked_at = 0.0
        return original(self, number)

    monkeypatch.setattr(trainer.Trainer, "_train_step", stopping)


def interrupted(train: TrainFunction, monkeypatch: pytest.MonkeyPatch, step: int, **changes: object) -> Trained:
    with monkeypatch.context() as patch:
        stop_at(patch, step)
        first = train("cut", **changes)
    assert first.events()[-1].outcome == "stopped"
    assert [c.step for c in first.run_dir.published()] == [step]
    return train("cut", resume=True, **changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer": "adam"},
        {"optimizer": "signum", "lr": 0.003},
        {"optimizer": "muon", "skip_connection": True},
        {"optimizer": "adam", "grad_acc_steps": 2, "batch_size": 2, "init_seeds": [0, 1]},
        {"optimizer": "adam", "auxk_alpha": 0.5, "dead_feature_threshold": 128, "k": 1},
        {"optimizer": "adam", "k_decay_steps": 6, "transcode": True, "skip_connection": True},
    ],
)
def test_resumed_run_is_bit_equal(
    train: TrainFunction, monkeypatch: pytest.MonkeyPatch, changes: dict[str, object]
) -> None:
    whole = train("whole", **changes)
    resumed = interrupted(train, monkeypatch, 4, **changes)
    assert resumed.exit_code == 0
    started = resumed.events(2)[0]
    assert (started.type, started.resumed_step) == ("attempt_started", 4)
    steps = [e for e in resumed.events(2) if e.type == "metrics" and "lr" in e.values]
    assert [e.step for e in steps] == list(range(5, 11))
    name = "layers.0/seed1" if "init_seeds" in changes else "layers.0"
    for key in (f"fvu/{name}", f"dead_frac/{name}", "lr"):
        assert [e.values[key] for e in steps] == whole.series(key)[4:]
    for key, tensor in whole.weights(10, name).items():
        assert torch.equal(tensor, resumed.weights(10, name)[key])
    assert resumed.evaluation(10) == whole.evaluation(10)


def test_resuming_without_a_checkpoint_starts(train: TrainFunction) -> None:
    events = train(resume=True).events()
    assert events[0].resumed_step == 0
    assert events[-1].outcome == "completed"
    assert events[-1].peak_memory_bytes > 100 * 2**20  # PyTorch alone


def test_resuming_a_complete_run_changes_nothing(train: TrainFunction) -> None:
    before = train().weights(10)
    again = train(resume=True)
    assert again.events(2)[-1].outcome == "completed"
    assert torch.equal(again.weights(10)["W_dec"], before["W_dec"])


def test_damaged_checkpoint_is_skipped_with_a_warning(train: TrainFunction) -> None:
    done = train(save_every=4)
    weights = done.run_dir.checkpoint(10).coder("layers.0").weights
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    again = train(save_every=4, resume=True)
    assert again.events(2)[0].resumed_step == 8
    assert any("is damaged" in e.message for e in again.events(2) if e.type == "warning")
    assert again.events(2)[-1].outcome == "completed"


@pytest.mark.parametrize(
    ("changes", "sentence"), [({"k": 5}, "sae.k was 4"), ({"max_tokens": 1280}, "max_tokens was 640")]
)
def test_another_configuration_is_refused(train: TrainFunction, changes: dict[str, object], sentence: str) -> None:
    train()
    last = train(resume=True, **changes).events(2)[-1]
    assert last.reason_code == "checkpoint_error"
    assert sentence in last.message
