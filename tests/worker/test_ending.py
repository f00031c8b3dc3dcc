"""What becomes of a run whose attempt has ended."""

import json
from pathlib import Path

import pytest

from server.db.tables import Intent, RunState
from sparsify_core import events
from sparsify_core.events import AttemptFinished
from sparsify_core.rundir import RunDir
from worker.ending import Evidence, error_message, finished_event, judge, read_tail

COMPLETED = AttemptFinished(outcome="completed")
STOPPED = AttemptFinished(outcome="stopped")
FAILED = AttemptFinished(outcome="failed", reason_code="model_error", message="no such model")


def ending(
    finished: AttemptFinished | None,
    returncode: int | None,
    *,
    intent: Intent = Intent.RUN,
    losses: int = 0,
    has_checkpoint: bool = True,
    was_drained: bool = False,
) -> tuple[str, str]:
    evidence = Evidence(finished, has_checkpoint, returncode, error="", was_drained=was_drained)
    judged = judge(evidence, intent=intent, losses=losses)
    return judged.to, judged.reason_code


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (ending(COMPLETED, 0), (RunState.COMPLETED, "")),
        (ending(COMPLETED, 0, intent=Intent.CANCEL), (RunState.COMPLETED, "")),
        (ending(COMPLETED, None), (RunState.COMPLETED, "")),
        (ending(COMPLETED, 0, has_checkpoint=False), (RunState.FAILED, "checkpoint_missing")),
        (ending(STOPPED, 0, intent=Intent.CANCEL), (RunState.CANCELLED, "")),
        (ending(None, -9, intent=Intent.CANCEL), (RunState.CANCELLED, "")),
        (ending(FAILED, 1, intent=Intent.CANCEL), (RunState.CANCELLED, "")),
        (ending(STOPPED, 0, was_drained=True), (RunState.QUEUED, "")),
        (ending(None, -9, was_drained=True, losses=5), (RunState.QUEUED, "")),
        (ending(STOPPED, 0, was_drained=True, intent=Intent.CANCEL), (RunState.CANCELLED, "")),
        (ending(FAILED, 1), (RunState.FAILED, "model_error")),
        (ending(FAILED, None), (RunState.FAILED, "model_error")),
        (ending(None, None), (RunState.QUEUED, "worker_lost")),
        (ending(None, None, losses=1), (RunState.FAILED, "worker_lost")),
        (ending(STOPPED, 0), (RunState.QUEUED, "worker_lost")),
        (ending(None, 1), (RunState.FAILED, "trainer_crashed")),
    ],
)
def test_the_ending_follows_from_the_evidence(found: tuple[str, str], expected: tuple[str, str]) -> None:
    assert found == expected


def test_a_killed_rank_is_named_from_the_log(tmp_path: Path) -> None:
    log = "  exitcode  : -9 (pid: 77)\n  traceback : Signal 9 (SIGKILL) received by PID 77\n"
    assert "killed by signal 9 (SIGKILL)" in error_message(RunDir(tmp_path), 1, log)
    assert "out of memory" in error_message(RunDir(tmp_path), 1, log)
    assert error_message(RunDir(tmp_path), 1, "nothing") == ""


def test_the_error_file_of_torchrun_comes_first(tmp_path: Path) -> None:
    run_dir = RunDir(tmp_path)
    run_dir.error_file(1).parent.mkdir()
    run_dir.error_file(1).write_text(json.dumps({"message": {"message": "ValueError: odd", "extraInfo": {}}}))
    assert error_message(run_dir, 1, "Signal 9 (SIGKILL) received by PID 7") == "the trainer broke: ValueError: odd"


def test_the_last_event_tells_how_an_attempt_finished(tmp_path: Path) -> None:
    path = RunDir(tmp_path).events(1)
    assert finished_event(path) is None
    writer = events.EventWriter(path, attempt=1)
    writer.write(events.Metrics(values={"lr": 1.0}))
    assert finished_event(path) is None
    writer.write(FAILED)
    finished = finished_event(path)
    assert finished is not None
    assert (finished.outcome, finished.message) == ("failed", "no such model")


def test_the_tail_of_a_log_has_two_hundred_lines(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"\x00\xff" + b"".join(b"line %d\n" % n for n in range(1000)))
    lines = read_tail(path).splitlines()
    assert (len(lines), lines[-1]) == (200, "line 999")
    assert read_tail(tmp_path / "none") == ""
