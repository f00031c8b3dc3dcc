"""On a full disk a run does not begin, or ends without harm to what is saved; it goes on when there is room."""

import pytest

from full_disk import FullDisk
from runs import Trained, TrainFunction
from sparsify_core.manifest import verify_checkpoint
from sparsify_core.rundir import RunDir
from sparsify_core.train import checkpoint, saving


def assert_paused_by_disk(done: Trained, steps: list[int]) -> None:
    last = done.events()[-1]
    assert (done.exit_code, last.type, last.reason_code) == (1, "attempt_finished", "disk_full")
    assert [saved.step for saved in done.run_dir.published()] == steps
    for saved in done.run_dir.published():
        verify_checkpoint(saved)
    assert [path.name for path in done.run_dir.root.rglob(".tmp-*")] == []


def test_without_room_for_two_checkpoints_training_does_not_begin(train: TrainFunction, full_disk: FullDisk) -> None:
    full_disk.fill(leave_bytes=160_000)  # one would fit
    done = train("disk/run")
    assert_paused_by_disk(done, [])
    assert "GB free: make room" in done.events()[-1].message
    assert not any(event.type == "metrics" for event in done.events())


@pytest.mark.parametrize("left_bytes", [0, 8_192, 24_576, 65_536, 98_304])
def test_a_disk_that_fills_while_a_checkpoint_is_written_harms_nothing(
    train: TrainFunction, full_disk: FullDisk, monkeypatch: pytest.MonkeyPatch, left_bytes: int
) -> None:
    original = checkpoint.check_space
    looks = []

    def somebody_else_is_faster(run_dir: RunDir, needed_bytes: float) -> None:
        original(run_dir, needed_bytes)
        looks.append(run_dir)
        if len(looks) == 2:
            full_disk.fill(leave_bytes=left_bytes)

    monkeypatch.setattr(checkpoint, "check_space", somebody_else_is_faster)
    assert saving.check_space is original
    stopped = train("disk/run", save_every=4)
    assert_paused_by_disk(stopped, [4])
    full_disk.free()
    resumed = train("disk/run", save_every=4, resume=True)
    assert resumed.exit_code == 0
    assert resumed.events(2)[0].resumed_step == 4
    assert [saved.step for saved in resumed.run_dir.published()] == [8, 10]
