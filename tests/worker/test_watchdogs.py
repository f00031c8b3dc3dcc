"""Watchdogs: who hangs, and a machine on which every run dies."""

import errno
import os
import time
from pathlib import Path

import pytest
from sqlmodel import select

from rows import add_worker, claim_by
from server.db.placing import place_queued
from server.db.runs import release, set_queue_paused
from server.db.session import Database
from server.db.tables import Attempt, QueueState, Run, RunState
from server.settings import Settings
from worker import processes
from worker.early_deaths import EARLY_S, pause_if_runs_die_early
from worker.starter import Starter
from worker.watchdog import Watchdog


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_only_a_pulse_that_stands_still_is_complained_of(tmp_path: Path) -> None:
    clock, pulse = Clock(), tmp_path / "0001.pulse"
    watchdog = Watchdog(pulse, limit_s=10, clock=clock)
    clock.now += 1000
    assert watchdog.complaint() == ""  # loading may take long
    pulse.touch()
    for beat in range(1, 5):
        os.utime(pulse, (beat, beat))
        clock.now += 9
        assert watchdog.complaint() == ""
    clock.now += 10
    assert watchdog.complaint() == ""
    clock.now += 1
    assert "made no step for 11 s" in watchdog.complaint()
    os.utime(pulse, (1, 1))  # clocks may be set back: another time is a beat
    assert watchdog.complaint() == ""


def end_attempt(
    database: Database,
    run_id: str,
    reason_code: str = "trainer_crashed",
    *,
    outcome: str = "failed",
    lived_s: float = 5.0,
) -> bool:
    """Claim a run, have the attempt end, and look whether that pauses the queue."""
    to = RunState.RETRY_WAIT if reason_code else RunState.COMPLETED
    with database.write() as session:
        fence = claim_by(session, run_id)
        assert fence is not None
        attempt = session.get_one(Attempt, (run_id, fence))
        attempt.started_at = time.time() - lived_s
        session.flush()
        assert release(
            session, run_id, fence, to, actor="supervisor", outcome=outcome, reason_code=reason_code, message="why"
        )
        run = session.get_one(Run, run_id)
        run.state = RunState.QUEUED
        return pause_if_runs_die_early(session)


@pytest.fixture
def run_ids(database: Database) -> list[str]:
    with database.write() as session:
        runs = [Run(name=name, config={}) for name in "abcd"]
        session.add_all(runs)
        return [run.id for run in runs]


def test_runs_that_die_one_after_the_other_pause_the_queue(database: Database, run_ids: list[str]) -> None:
    first, second, third, fourth = run_ids
    assert not end_attempt(database, first)
    assert not end_attempt(database, second)
    assert end_attempt(database, third)
    with database.read() as session:
        queue = session.exec(select(QueueState)).one()
    assert queue.paused
    assert queue.reason == (
        "3 attempts in a row, of 3 runs, died within a minute of their start on host, the last one (c) because why"
    )

    with database.write() as session:
        add_worker(session)
        assert place_queued(session, actor="test", now=time.time()) == []
    with database.read() as session:
        assert "died within a minute" in session.get_one(Run, fourth).waits_for
    with database.write() as session:
        set_queue_paused(session, paused=False)
        assert len(place_queued(session, actor="test", now=time.time())) == 1
    with database.write() as session:
        assert not pause_if_runs_die_early(session)  # it counts anew


@pytest.mark.parametrize(
    "deaths",
    [
        ["a trainer_crashed", "a trainer_crashed", "a trainer_crashed", "a trainer_crashed"],
        ["a trainer_crashed", "b config_error", "c trainer_crashed", "d model_error"],
        ["a trainer_crashed", "b ", "c trainer_crashed", "d trainer_crashed"],
    ],
    ids=["one run", "what runs ask for", "one that lived"],
)
def test_other_deaths_do_not(database: Database, run_ids: list[str], deaths: list[str]) -> None:
    for death in deaths:
        name, _, reason_code = death.partition(" ")
        assert not end_attempt(database, run_ids["abcd".index(name)], reason_code)


@pytest.mark.parametrize(("lived_s", "is_paused"), [(5.0, True), (EARLY_S + 1, False)])
def test_a_run_that_was_stopped_early_says_nothing(
    database: Database, run_ids: list[str], lived_s: float, is_paused: bool
) -> None:
    """One that was stopped later shows that the machine works."""
    assert not end_attempt(database, run_ids[0])
    assert not end_attempt(database, run_ids[1])
    assert not end_attempt(database, run_ids[2], "", outcome="stopped", lived_s=lived_s)
    assert end_attempt(database, run_ids[3]) == is_paused


def test_runs_that_had_trained_for_a_while_do_not(database: Database, run_ids: list[str]) -> None:
    for run_id in run_ids:
        assert not end_attempt(database, run_id, lived_s=EARLY_S + 1)


def test_a_disk_that_is_too_full_to_start_on_pauses_the_run(
    database: Database, settings: Settings, run_ids: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with database.write() as session:
        worker = add_worker(session, boot_id=processes.boot_id())
        (placed,) = place_queued(session, actor="test", now=time.time())
    starter = Starter(database, settings, worker_id=worker.id)

    def no_room(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(starter, "_start_supervisor", no_room)
    starter.start()
    with database.read() as session:
        run = session.get_one(Run, placed.run_id)
    assert (run.state, run.reason_code) == (RunState.PAUSED, "disk_full")
    assert "No space left" in run.message
