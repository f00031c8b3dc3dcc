"""Processes are killed, frozen or stopped: training goes on, or goes on from its last checkpoint."""

import os
import signal
import time

import psutil
import pytest
from sqlmodel import select

from deployment import SAVE_EVERY, Deployment, Plan
from promises import no_secret_in_command_lines
from server.db.tables import ACTIVE, AttemptNode, RunState, Worker
from services import wait_until

pytestmark = pytest.mark.faults

HOLD_AT = 26
HELD: Plan = {HOLD_AT: ["hold"]}
RESUME_POINTS = (HOLD_AT // SAVE_EVERY * SAVE_EVERY, HOLD_AT)
"""The newest checkpoint of a run that is held, and the one that it still saves when it is asked to stop."""


def test_a_killed_worker_takes_no_run_with_it(deployment: Deployment) -> None:
    run_id = deployment.submit(plans={1: HELD})
    deployment.wait_held(run_id)
    no_secret_in_command_lines()
    deployment.kill_worker()
    deployment.start_worker()
    deployment.go(run_id)
    run = deployment.wait_end(run_id)
    assert (run.state, run.attempt, run.losses) == (RunState.COMPLETED, 1, 0)


def test_a_killed_supervisor_takes_its_tree_with_it_and_the_run_resumes(deployment: Deployment) -> None:
    run_id = deployment.submit(plans={1: HELD})
    deployment.wait_held(run_id)
    family = deployment.family(run_id)
    deployment.supervisor(run_id).kill()
    assert_gone(family, within_s=10)
    assert_resumed(deployment, run_id, "worker_lost")


def test_a_killed_torchrun_takes_its_ranks_with_it_and_the_run_resumes(deployment: Deployment) -> None:
    run_id = deployment.submit(plans={1: HELD})
    deployment.wait_held(run_id)
    ranks = deployment.ranks(run_id)
    deployment.torchrun(run_id).kill()
    assert_gone(ranks, within_s=10)
    assert_resumed(deployment, run_id, "killed")


@pytest.mark.long
def test_a_killed_rank_ends_its_group_and_the_run_resumes(deployment: Deployment) -> None:
    run_id = deployment.submit(plans={1: HELD}, num_processes=2, max_tokens=16 * 4 * 2 * 40)
    deployment.wait_held(run_id)
    ranks = deployment.ranks(run_id)
    assert len(ranks) == 2
    ranks[1].kill()
    assert_gone(ranks, within_s=40)  # torchrun gives a rank 30 s to end
    assert_resumed(deployment, run_id, "killed", "communication_error")  # or what the other one has noticed first


@pytest.mark.long
def test_a_supervisor_that_was_frozen_beyond_its_lease_gives_up_when_it_thaws(deployment: Deployment) -> None:
    run_id = deployment.submit(plans={1: HELD})
    deployment.wait_held(run_id)
    supervisor, family = deployment.supervisor(run_id), deployment.family(run_id)
    supervisor.send_signal(signal.SIGSTOP)
    try:
        deployment.wait_state(run_id, RunState.RETRY_WAIT, timeout_s=deployment.settings.lease_s + 30)
        assert_gone([p for p in family if p.pid != supervisor.pid], within_s=5)
    finally:
        if supervisor.is_running():
            supervisor.send_signal(signal.SIGCONT)
    assert_gone([supervisor], within_s=10)
    assert_resumed(deployment, run_id, "worker_lost")


def test_a_stopped_worker_leaves_training_alone_and_costs_nothing(deployment: Deployment) -> None:
    run_id = deployment.submit(plans={1: HELD})
    deployment.wait_held(run_id)
    deployment.stop_worker()
    assert deployment.run(run_id).state in ACTIVE
    deployment.start_worker()
    deployment.go(run_id)
    run = deployment.wait_end(run_id)
    assert (run.state, run.attempt, run.failures, run.losses) == (RunState.COMPLETED, 1, 0, 0)


@pytest.mark.long
def test_a_stopping_host_saves_and_gives_the_run_back_to_the_queue(deployment: Deployment) -> None:
    run_id = deployment.submit(plans={1: HELD})
    deployment.wait_held(run_id)
    deployment.stop_worker()
    deployment.supervisor(run_id).terminate()
    run = deployment.wait_state(run_id, RunState.QUEUED)
    assert (run.failures, run.losses) == (0, 0)
    assert deployment.run_dir(run_id).published()[-1].step == HOLD_AT
    deployment.start_worker()
    run = deployment.wait_end(run_id)
    assert (run.state, run.attempt, run.failures, run.losses) == (RunState.COMPLETED, 2, 0, 0)


@pytest.mark.long
def test_after_a_reboot_every_active_run_is_queued_once(deployment: Deployment) -> None:
    run_id = deployment.submit(plans={1: HELD})
    waiting = deployment.submit()
    deployment.wait_held(run_id)
    deployment.kill_worker()
    for process in deployment.family(run_id):
        process.kill()
    with deployment.database.write() as session:  # another boot, and the process id is somebody else's by now
        node = session.get_one(AttemptNode, (run_id, 1, 0))
        node.boot_id = "0" * 8 + node.boot_id[8:]
        node.supervisor_pid, node.supervisor_started = os.getpid(), 0.0
    deployment.start_worker()
    assert_resumed(deployment, run_id, "worker_lost")
    run = deployment.wait_end(waiting)
    assert (run.state, run.attempt) == (RunState.COMPLETED, 1)


@pytest.mark.long
def test_a_trainer_that_ignores_being_stopped_is_killed(deployment: Deployment) -> None:
    run_id = deployment.submit(plans={1: {HOLD_AT: ["turn_deaf"]}})
    deployment.wait_held(run_id)
    family = deployment.family(run_id)
    assert deployment.ask("cancel", run_id) == RunState.STOPPING
    assert deployment.wait_state(run_id, RunState.CANCELLED, timeout_s=20).message == ""
    assert_gone(family, within_s=10)


@pytest.mark.long
def test_a_worker_of_an_older_version_gets_no_runs(deployment: Deployment) -> None:
    with deployment.database.write() as session:
        session.exec(select(Worker)).one().protocol = 0
    run_id = deployment.submit()
    deployment.deliver(10)
    time.sleep(6)  # longer than the worker's look at the queue
    assert deployment.run(run_id).state == RunState.QUEUED
    deployment.stop_worker()
    deployment.start_worker()
    assert deployment.wait_end(run_id).state == RunState.COMPLETED


def assert_gone(processes: list[psutil.Process], *, within_s: float) -> None:
    wait_until(lambda: not [p for p in processes if is_alive(p)], timeout_s=within_s, what="processes to be gone")


def is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def assert_resumed(deployment: Deployment, run_id: str, *reason_codes: str) -> None:
    """One attempt was lost, and the next one went on from the newest checkpoint and came to the end."""
    deployment.go(run_id)
    run = deployment.wait_end(run_id)
    assert (run.state, run.attempt, run.failures, run.losses) == (RunState.COMPLETED, 2, 0, 1), run.message
    first, second = deployment.attempts(run_id)
    assert first.reason_code in reason_codes
    assert second.resumed_step in RESUME_POINTS
