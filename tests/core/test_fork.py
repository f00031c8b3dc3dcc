"""A run that goes on behind a checkpoint of another one (`finetune_state`): exactly there, and with the changes."""

import pytest
import torch

from runs import Trained, TrainFunction


def fork(train: TrainFunction, first: Trained, step: int, **changes: object) -> Trained:
    return train("fork", finetune=str(first.run_dir.checkpoint(step).root), finetune_state=True, **changes)


@pytest.mark.parametrize("optimizer", ["adam", "signum"])
def test_a_fork_without_changes_ends_where_the_run_does(train: TrainFunction, optimizer: str) -> None:
    first = train("first", optimizer=optimizer, save_every=4, keep_last=9)
    second = fork(train, first, 4, optimizer=optimizer)
    assert second.exit_code == 0
    assert second.events()[0].resumed_step == 4
    for name, tensor in first.weights(10).items():
        assert torch.equal(tensor, second.weights(10)[name])


@pytest.mark.parametrize("optimizer", ["adam", "signum", "muon"])
def test_a_fork_takes_its_own_learning_rate_and_k(train: TrainFunction, optimizer: str) -> None:
    first = train("first", optimizer=optimizer, lr=0.01, save_every=4, keep_last=9)
    second = fork(train, first, 4, optimizer=optimizer, lr=0.001, k=2)
    assert second.series("lr") == pytest.approx([rate / 10 for rate in first.series("lr")[4:]])
    assert second.series("l0/layers.0") == [2.0] * 6
    # The state came along: a fresh optimizer would take other steps.
    fresh = train("fresh", optimizer=optimizer, finetune=str(first.run_dir.checkpoint(4).root), lr=0.001, k=2)
    assert fresh.events()[0].resumed_step == 0


def test_a_fork_that_was_interrupted_goes_on_with_its_own_checkpoint(train: TrainFunction) -> None:
    first = train("first", save_every=4, keep_last=9)
    second = fork(train, first, 4, lr=0.02, save_every=3)
    again = fork(train, first, 4, lr=0.02, save_every=3, resume=True)
    assert again.events(2)[0].resumed_step == second.run_dir.published()[-1].step == 10


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"batch_size": 2}, "batch_size was 4 when step-00000004 was saved and is 2 now"),
        ({"optimizer": "signum"}, "optimizer was adam"),
        ({"max_tokens": 320}, "max_tokens was 640"),
    ],
)
def test_what_does_not_go_with_the_state_is_refused(
    train: TrainFunction, changes: dict[str, object], says: str
) -> None:
    first = train("first", save_every=4, keep_last=9)
    last = fork(train, first, 4, **changes).events()[-1]
    assert (last.outcome, last.reason_code) == ("failed", "checkpoint_error")
    assert says in last.message
    assert "leave finetune_state out" in last.message


def test_a_checkpoint_at_the_end_leaves_nothing_to_train(train: TrainFunction) -> None:
    first = train("first")
    assert "is not before the end of this run of 10 steps" in fork(train, first, 10).events()[-1].message


def test_weights_without_a_training_state_are_no_fork_point(train: TrainFunction) -> None:
    first = train("first")
    first.run_dir.checkpoint(10).training_state.unlink()
    assert fork(train, first, 10).events()[-1].outcome == "failed"
