"""Runs are taken from the dead and the silent, and from nobody else."""

import os
import subprocess

import pytest
from sqlmodel import select

from rows import SOMEWHERE, add_run, add_worker, claim_by, claimed_run, held_run
from server.db.runs import (
    active,
    heartbeat,
    is_unchanged,
    note_processes,
    quarantine,
    request_cancel,
    requeue,
    set_supervisor,
)
from server.db.session import Database
from server.db.tables import DeviceLease, ProcessIdentity, Run, RunState
from server.db.workers import has_other_hosts, held_devices
from server.settings import Settings
from services import python
from sparsify_core import events
from worker import processes
from worker.ending import conclude
from worker.failures import BUDGET
from worker.orphans import kill_orphans, lift_quarantines
from worker.reaper import Reaper


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def reaper(database: Database, settings: Settings, clock: Clock) -> Reaper:
    return Reaper(database, settings, host="here", clock=clock)


def state_of(database: Database, run_id: str) -> tuple[str, str, int]:
    with database.read() as session:
        run = session.get_one(Run, run_id)
        return run.state, run.reason_code, run.losses


def sleeper(run_id: str, fence: int) -> subprocess.Popen[bytes]:
    environment = os.environ | {processes.RUN_ID_VARIABLE: run_id, processes.FENCE_VARIABLE: str(fence)}
    return subprocess.Popen(python("-c", "import time; time.sleep(60)"), env=environment)


def watch(reaper: Reaper, clock: Clock, seconds: float) -> list[tuple[str, RunState]]:
    """Look every two seconds for so long, as a worker does."""
    reaped = []
    for _ in range(round(seconds / 2)):
        clock.now += 2
        reaped += reaper.reap()
    return reaped


def test_a_silent_holder_loses_the_run_after_a_whole_lease(
    database: Database, settings: Settings, reaper: Reaper, clock: Clock
) -> None:
    run_id, fence = held_run(database)
    assert reaper.reap() == []
    assert watch(reaper, clock, settings.lease_s - 2) == []
    with database.write() as session:
        heartbeat(session, run_id, fence)
    assert watch(reaper, clock, settings.lease_s) == []
    assert watch(reaper, clock, 4) == [(run_id, RunState.RETRY_WAIT)]
    assert state_of(database, run_id) == (RunState.RETRY_WAIT, "worker_lost", 1)
    with database.write() as session:
        assert heartbeat(session, run_id, fence) is None


def test_a_worker_that_starts_no_supervisor_costs_the_run_nothing_for_a_while(
    database: Database, settings: Settings, reaper: Reaper, clock: Clock
) -> None:
    run_id, _ = claimed_run(database)
    for _ in range(BUDGET):
        reaper.reap()
        assert watch(reaper, clock, settings.lease_s + 2) == [(run_id, RunState.RETRY_WAIT)]
        assert state_of(database, run_id) == (RunState.RETRY_WAIT, "not_started", 0)
        with database.write() as session:
            requeue(session, run_id, actor="user")
            assert claim_by(session, run_id) is not None
    reaper.reap()
    assert watch(reaper, clock, settings.lease_s + 2) == [(run_id, RunState.FAILED)]
    assert state_of(database, run_id) == (RunState.FAILED, "not_started", 0)


def test_a_node_that_shows_a_sign_of_life_keeps_the_run(
    database: Database, settings: Settings, reaper: Reaper, clock: Clock
) -> None:
    """While the reaper takes others away."""
    run_id, fence = claimed_run(database)
    with database.write() as session:
        ((_, seen),) = active(session)
        set_supervisor(session, run_id, fence, SOMEWHERE)
    assert conclude(database, settings, run_id, fence, actor="reaper", returncode=None, lost=seen) is None
    with database.write() as session:
        ((_, seen),) = active(session)
        heartbeat(session, run_id, fence)
    assert conclude(database, settings, run_id, fence, actor="reaper", returncode=None, lost=seen) is None
    assert state_of(database, run_id) == (RunState.STARTING, "", 0)


def test_looking_at_a_node_locks_nothing(database: Database) -> None:
    run_id, _ = claimed_run(database)
    with database.read() as session:
        session.connection(execution_options={"postgresql_readonly": True})
        ((_, seen),) = active(session)
        assert (seen.run_id, is_unchanged(session, seen)) == (run_id, True)


def test_a_reaper_that_was_blind_waits_a_whole_lease_again(
    database: Database, settings: Settings, reaper: Reaper, clock: Clock
) -> None:
    """While the database was away nobody could renew a lease."""
    run_id, _ = claimed_run(database)
    assert reaper.reap() == []
    clock.now += 10 * settings.lease_s
    assert watch(reaper, clock, settings.lease_s) == []
    assert state_of(database, run_id)[0] == RunState.STARTING
    assert watch(reaper, clock, 4) == [(run_id, RunState.RETRY_WAIT)]


def test_a_cancelled_run_is_not_started_again(
    database: Database, settings: Settings, reaper: Reaper, clock: Clock
) -> None:
    run_id, _ = claimed_run(database)
    with database.write() as session:
        assert request_cancel(session, run_id, actor="user") == RunState.STOPPING
    reaper.reap()
    assert watch(reaper, clock, settings.lease_s + 2) == [(run_id, RunState.CANCELLED)]


def test_a_dead_supervisor_of_this_host_is_noticed_at_once(
    database: Database, settings: Settings, clock: Clock
) -> None:
    supervisor = sleeper("another-run", 1)
    run_id, fence = held_run(database, processes.identity(supervisor.pid))
    rank = sleeper(run_id, fence)
    reaper = Reaper(database, settings, host="host", clock=clock)
    assert reaper.reap() == []
    supervisor.kill()
    supervisor.wait()
    writer = events.EventWriter(settings.run_dir(run_id).events(fence), attempt=fence)
    writer.write(events.Metrics(step=7, values={"lr": 0.1}))
    assert reaper.reap() == [(run_id, RunState.RETRY_WAIT)]
    assert rank.wait(timeout=5) is not None
    with database.read() as session:
        assert session.get_one(Run, run_id).step == 7  # what the dead one had not read any more


def test_a_run_of_an_earlier_boot_is_lost_at_once(database: Database, settings: Settings, clock: Clock) -> None:
    with database.write() as session:
        rebooted, elsewhere = add_run(session).id, add_run(session).id
        assert claim_by(session, rebooted, boot_id="before") == 1
        assert claim_by(session, elsewhere, "other", host="elsewhere", boot_id="before") == 1
    assert Reaper(database, settings, host="host", clock=clock).reap() == [(rebooted, RunState.RETRY_WAIT)]


def test_a_device_is_given_back_when_its_last_process_is_gone(database: Database) -> None:
    run_id, fence = claimed_run(database)
    with database.write() as session:
        quarantine(session, run_id, fence, actor="supervisor", reason="hangs", processes=[])
    process = sleeper(run_id, fence)
    try:
        assert lift_quarantines(database, "w") == 0
    finally:
        process.kill()
        process.wait()
    assert lift_quarantines(database, "another") == 0
    assert lift_quarantines(database, "w") == 1
    with database.read() as session:
        assert held_devices(session) == []


def test_a_device_stays_taken_while_a_process_without_environment_is_there(database: Database) -> None:
    """As one has none that hangs while it exits."""
    run_id, fence = claimed_run(database)
    process = subprocess.Popen(python("-c", "import time; time.sleep(60)"), env={})
    survivors = [processes.identity(process.pid)]
    with database.write() as session:
        quarantine(session, run_id, fence, actor="supervisor", reason="hangs", processes=survivors)
    try:
        assert lift_quarantines(database, "w") == 0
    finally:
        process.kill()
        process.wait()
    assert lift_quarantines(database, "w") == 1


def test_a_process_of_another_container_is_gone_with_the_boot_at_the_latest(database: Database) -> None:
    run_id, fence = claimed_run(database)
    there = ProcessIdentity(pid=1, started=0.0, boot_id=processes.boot_id(), pid_namespace="of another container")
    with database.write() as session:
        quarantine(session, run_id, fence, actor="supervisor", reason="hangs", processes=[there])
    assert lift_quarantines(database, "w") == 0
    with database.write() as session:
        lease = session.exec(select(DeviceLease)).one()
        lease.processes = [ProcessIdentity(**(there | {"boot_id": "before"}))]
    assert lift_quarantines(database, "w") == 1


def test_containers_with_one_host_name_do_not_judge_each_other_by_process_ids(
    database: Database, settings: Settings, clock: Clock
) -> None:
    mine = processes.identity(os.getpid())
    gone = mine | {"started": mine["started"] + 100}
    run_id, fence = held_run(database, ProcessIdentity(**(gone | {"pid_namespace": "of another container"})))
    reaper = Reaper(database, settings, host="host", clock=clock)
    assert reaper.reap() == []
    assert watch(reaper, clock, settings.lease_s - 2) == []
    assert watch(reaper, clock, 4) == [(run_id, RunState.RETRY_WAIT)]
    with database.write() as session:
        requeue(session, run_id, actor="user")
        assert claim_by(session, run_id) is not None
        set_supervisor(session, run_id, fence + 1, ProcessIdentity(**gone))
    assert reaper.reap() == [(run_id, RunState.RETRY_WAIT)]


def test_what_a_dead_supervisor_noted_is_ended_although_it_has_no_environment(
    database: Database, settings: Settings, clock: Clock
) -> None:
    mine = processes.identity(os.getpid())
    run_id, fence = held_run(database, ProcessIdentity(**(mine | {"started": 0.0})))
    rank = subprocess.Popen(python("-c", "import time; time.sleep(60)"), env={})
    noted = processes.identity(rank.pid)
    with database.write() as session:
        note_processes(session, run_id, fence, 0, [noted])
    try:
        assert Reaper(database, settings, host="host", clock=clock).reap() == [(run_id, RunState.RETRY_WAIT)]
        assert processes.is_gone(noted)
    finally:
        rank.kill()
        rank.wait()


def test_a_worker_in_another_container_is_another_host(database: Database) -> None:
    with database.write() as session:
        add_worker(session, "host", pid_namespace="a")
        assert not has_other_hosts(session, "host", "a")
        assert has_other_hosts(session, "host", "b")


def test_only_outdated_processes_of_known_runs_are_orphans(database: Database) -> None:
    run_id, fence = claimed_run(database)
    outdated, current, foreign = sleeper(run_id, fence - 1), sleeper(run_id, fence), sleeper("elsewhere", 0)
    try:
        assert kill_orphans(database) == 1
        assert outdated.wait(timeout=5) is not None
        assert (current.poll(), foreign.poll()) == (None, None)
    finally:
        for process in (outdated, current, foreign):
            process.kill()
            process.wait()
