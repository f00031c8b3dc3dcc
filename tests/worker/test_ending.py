"""What becomes of a run whose attempt has ended."""

import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from rows import SOMEWHERE, claim_by, claimed_run, held_run
from server.db.runs import active, request_cancel, requeue, resume, set_supervisor
from server.db.runs.moves import RELEASES
from server.db.session import Database
from server.db.tables import Intent, Run, RunState
from server.settings import Settings
from sparsify_core import events
from sparsify_core.events import AttemptFinished
from sparsify_core.rundir import RunDir
from worker.ending import Evidence, conclude, error_message, finished_event, judge, killed_by, read_tail
from worker.failures import BUDGET, FAILURES

COMPLETED = AttemptFinished(outcome="completed")
STOPPED = AttemptFinished(outcome="stopped")
FAILED = AttemptFinished(outcome="failed", reason_code="model_error", message="no such model")


LAST = BUDGET - 1
NOTHING: Mapping[str, int] = {}


def ending(
    finished: AttemptFinished | None,
    returncode: int | None,
    *,
    intent: Intent = Intent.RUN,
    losses: int = 0,
    failures: int = 0,
    before: Mapping[str, int] = NOTHING,
    **evidence: Any,
) -> tuple[str, str, str]:
    found = Evidence(finished, evidence.pop("has_checkpoint", True), returncode, **evidence)
    judged = judge(found, intent=intent, spent={"failures": failures, "losses": losses, **before})
    return judged.to, judged.reason_code, judged.spends


def failed(code: str) -> AttemptFinished:
    return AttemptFinished(outcome="failed", reason_code=code, message="because")


OUT_OF_MEMORY, NOT_FINITE = failed("gpu_out_of_memory"), failed("non_finite_loss")
STOPPING: dict[str, Any] = {"is_stopping": True}
ROLLBACK: dict[str, Any] = {"may_roll_back": True}
PAUSING: dict[str, Any] = {"is_stopping": True, "intent": Intent.PAUSE}


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (ending(COMPLETED, 0), (RunState.COMPLETED, "", "")),
        (ending(COMPLETED, 0, intent=Intent.CANCEL), (RunState.COMPLETED, "", "")),
        (ending(COMPLETED, 0, **PAUSING), (RunState.COMPLETED, "", "")),
        (ending(COMPLETED, None), (RunState.COMPLETED, "", "")),
        (ending(COMPLETED, 0, has_checkpoint=False), (RunState.FAILED, "checkpoint_missing", "failures")),
        (ending(STOPPED, 0, intent=Intent.CANCEL), (RunState.CANCELLED, "", "")),
        (ending(None, -9, intent=Intent.CANCEL), (RunState.CANCELLED, "", "")),
        (ending(FAILED, 1, intent=Intent.CANCEL), (RunState.CANCELLED, "", "")),
        (ending(STOPPED, 0, **STOPPING), (RunState.QUEUED, "", "")),
        (ending(None, 1, **STOPPING), (RunState.QUEUED, "", "")),
        (ending(None, -9, losses=BUDGET, **STOPPING), (RunState.QUEUED, "", "")),
        (ending(failed("interrupted"), 1, **STOPPING), (RunState.QUEUED, "", "")),
        (ending(FAILED, 1, **STOPPING), (RunState.FAILED, "model_error", "failures")),
        (ending(STOPPED, 0, **PAUSING), (RunState.PAUSED, "", "")),
        (ending(None, None, losses=BUDGET, **PAUSING), (RunState.PAUSED, "", "")),
        (ending(failed("hub_unavailable"), 1, **PAUSING), (RunState.PAUSED, "", "")),
        (ending(FAILED, 1), (RunState.FAILED, "model_error", "failures")),
        (ending(FAILED, None), (RunState.FAILED, "model_error", "failures")),
        (ending(None, None), (RunState.RETRY_WAIT, "worker_lost", "losses")),
        (ending(None, None, failures=BUDGET), (RunState.RETRY_WAIT, "worker_lost", "losses")),
        (ending(None, None, losses=LAST), (RunState.RETRY_WAIT, "worker_lost", "losses")),
        (ending(None, None, losses=BUDGET), (RunState.FAILED, "worker_lost", "losses")),
        (ending(STOPPED, 0), (RunState.RETRY_WAIT, "worker_lost", "losses")),
        (ending(None, 1), (RunState.FAILED, "trainer_crashed", "failures")),
        (ending(None, 1, killed_by=9), (RunState.RETRY_WAIT, "killed", "losses")),
        (ending(None, -15), (RunState.RETRY_WAIT, "killed", "losses")),
        (ending(None, 1, killed_by=11), (RunState.RETRY_WAIT, "crashed", "failures")),
        (ending(None, 1, killed_by=11, failures=BUDGET), (RunState.FAILED, "crashed", "failures")),
        (ending(OUT_OF_MEMORY, 1), (RunState.RETRY_WAIT, "gpu_out_of_memory", "")),
        (ending(OUT_OF_MEMORY, 1, failures=BUDGET), (RunState.RETRY_WAIT, "gpu_out_of_memory", "")),
        (ending(OUT_OF_MEMORY, 1, before={"non_finite_loss": 1}), (RunState.RETRY_WAIT, "gpu_out_of_memory", "")),
        (ending(OUT_OF_MEMORY, 1, before={"gpu_out_of_memory": 1}), (RunState.FAILED, "gpu_out_of_memory", "")),
        (ending(OUT_OF_MEMORY, 1, has_trained=False), (RunState.FAILED, "gpu_out_of_memory", "")),
        (ending(None, None, has_started=False), (RunState.RETRY_WAIT, "not_started", "")),
        (ending(None, None, has_started=False, losses=BUDGET), (RunState.RETRY_WAIT, "not_started", "")),
        (ending(None, None, has_started=False, before={"not_started": BUDGET}), (RunState.FAILED, "not_started", "")),
        (ending(None, None, has_started=False, **PAUSING), (RunState.PAUSED, "", "")),
        (ending(failed("disk_full"), 1), (RunState.PAUSED, "disk_full", "")),
        (ending(NOT_FINITE, 1), (RunState.FAILED, "non_finite_loss", "")),
        (ending(NOT_FINITE, 1, failures=BUDGET, **ROLLBACK), (RunState.RETRY_WAIT, "non_finite_loss", "")),
        (ending(NOT_FINITE, 1, before={"non_finite_loss": 1}, **ROLLBACK), (RunState.FAILED, "non_finite_loss", "")),
        (ending(None, 1, is_disk_full=True), (RunState.PAUSED, "disk_full", "")),
        (ending(None, None, is_disk_full=True), (RunState.PAUSED, "disk_full", "")),
        (ending(FAILED, 1, is_disk_full=True), (RunState.FAILED, "model_error", "failures")),
        (ending(COMPLETED, 0, is_disk_full=True), (RunState.COMPLETED, "", "")),
        (ending(failed("stalled"), -9, failures=LAST), (RunState.RETRY_WAIT, "stalled", "failures")),
        (ending(failed("stalled"), -9, failures=BUDGET), (RunState.FAILED, "stalled", "failures")),
        (ending(failed("internal_error"), 1), (RunState.FAILED, "internal_error", "failures")),
    ],
)
def test_the_ending_follows_from_the_evidence(found: tuple[str, str, str], expected: tuple[str, str, str]) -> None:
    assert found == expected


@pytest.mark.parametrize("intent", Intent)
@pytest.mark.parametrize("outcome", [None, "completed", "stopped", *FAILURES, "something else"])
def test_every_ending_is_a_move_that_a_holder_can_make(outcome: str | None, intent: Intent) -> None:
    """Otherwise the run would be held for ever."""
    finished = {None: None, "completed": COMPLETED, "stopped": STOPPED}.get(
        outcome, AttemptFinished(outcome="failed", reason_code=outcome or "")
    )
    flags = [False, True]
    for has_checkpoint, is_stopping, has_trained, is_lost in itertools.product(flags, flags, flags, flags):
        for spent, returncode in itertools.product((0, BUDGET), (None, 0, 1, -9)):
            evidence = Evidence(
                finished,
                has_checkpoint,
                returncode,
                is_stopping=is_stopping,
                has_trained=has_trained,
                has_lost_node=is_lost,
            )
            to = judge(evidence, intent=intent, spent={"failures": spent, "losses": spent}).to
            # Who wants to pause or to cancel a run has it stopped.
            if is_stopping or intent == Intent.RUN:
                assert intent in RELEASES[to].intents, evidence


def test_a_killed_rank_is_named_from_the_log() -> None:
    log = "  exitcode  : -9 (pid: 77)\n  traceback : Signal 9 (SIGKILL) received by PID 77\n"
    assert (killed_by(log), killed_by("nothing")) == (9, None)
    judged = judge(
        Evidence(None, has_checkpoint=False, returncode=1, killed_by=9),
        intent=Intent.RUN,
        spent={"failures": 0, "losses": BUDGET},
    )
    assert "killed by signal 9 (SIGKILL): the machine probably ran out of memory" in judged.message
    assert f"{BUDGET + 1} attempts have failed so far" in judged.message


def test_the_error_file_of_torchrun_is_read(tmp_path: Path) -> None:
    run_dir = RunDir(tmp_path)
    assert error_message(run_dir, 1) == ""
    run_dir.error_file(1).parent.mkdir()
    run_dir.error_file(1).write_text(json.dumps({"message": {"message": "ValueError: odd", "extraInfo": {}}}))
    assert error_message(run_dir, 1) == "the trainer broke: ValueError: odd"


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


def test_a_second_try_is_not_used_up_by_what_else_went_wrong(database: Database, settings: Settings) -> None:
    run_id, fence = claimed_run(database)
    ends = [
        ("stalled", RunState.RETRY_WAIT, 1),
        ("gpu_out_of_memory", RunState.RETRY_WAIT, 1),
        ("crashed", RunState.RETRY_WAIT, 2),
        ("gpu_out_of_memory", RunState.FAILED, 2),
    ]
    for code, expected, failures in ends:
        writer = events.EventWriter(settings.run_dir(run_id).events(fence), attempt=fence)
        writer.write(events.Metrics(step=10 * fence, values={"lr": 0.1}))
        writer.write(failed(code))
        assert conclude(database, settings, run_id, fence, actor="supervisor", returncode=1) == expected
        with database.write() as session:
            run = session.get_one(Run, run_id)
            assert (run.reason_code, run.failures, run.losses) == (code, failures, 0)
            requeue(session, run_id, actor="user")
            fence = claim_by(session, run_id) or 0


def test_losses_are_paid_from_the_budget_until_it_is_spent(database: Database, settings: Settings) -> None:
    run_id, fence = held_run(database)
    settings.run_dir(run_id).log(1).parent.mkdir(parents=True)
    settings.run_dir(run_id).log(1).write_text("the last words\n")
    for losses in range(1, BUDGET + 2):
        state = take_away(database, settings, run_id)
        assert state == (RunState.RETRY_WAIT if losses <= BUDGET else RunState.FAILED)
        with database.write() as session:
            run = session.get_one(Run, run_id)
            assert (run.losses, run.failures, run.reason_code) == (losses, 0, "worker_lost")
            if state == RunState.RETRY_WAIT:
                assert run.log_tail == ("the last words" if losses == 1 else "")
                requeue(session, run_id, actor="user")
                fence = claim_by(session, run_id) or 0
                set_supervisor(session, run_id, fence, SOMEWHERE)
        assert conclude(database, settings, run_id, losses, actor="supervisor", returncode=0) is None  # fenced out


def test_a_full_disk_pauses_the_run_with_the_reason(database: Database, settings: Settings) -> None:
    run_id, fence = claimed_run(database)
    writer = events.EventWriter(settings.run_dir(run_id).events(fence), attempt=fence)
    writer.write(AttemptFinished(outcome="failed", reason_code="disk_full", message="the disk is full"))
    assert conclude(database, settings, run_id, fence, actor="supervisor", returncode=1) == RunState.PAUSED
    with database.write() as session:
        run = session.get_one(Run, run_id)
        assert (run.reason_code, run.message, run.failures) == ("disk_full", "the disk is full", 0)
        assert resume(session, run_id, actor="user") == RunState.QUEUED
        session.refresh(run)
        assert run.message == ""


def test_an_acknowledged_cancel_ends_a_lost_run(database: Database, settings: Settings) -> None:
    run_id, _ = held_run(database)
    with database.write() as session:
        assert request_cancel(session, run_id, actor="user") == RunState.STOPPING
    assert take_away(database, settings, run_id) == RunState.CANCELLED


def take_away(database: Database, settings: Settings, run_id: str) -> RunState | None:
    """As the reaper does, from the node that holds the run."""
    with database.read() as session:
        run, node = active(session)[0]
    assert run.id == run_id
    return conclude(database, settings, run_id, run.fence, actor="reaper", returncode=None, lost=node)
