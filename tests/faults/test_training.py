"""Training itself goes wrong: the row says why, and what can be tried again is."""

import pytest

from deployment import CANARY, SAVE_EVERY, STEPS, Deployment
from server.db.tables import RunState

pytestmark = [pytest.mark.faults, pytest.mark.long]


def test_a_loss_that_is_not_a_number_fails_the_run_and_keeps_its_checkpoints(either: Deployment) -> None:
    run_id = either.submit(plans={1: {26: ["poison"]}})
    run = either.wait_end(run_id)
    assert (run.state, run.reason_code, run.attempt) == (RunState.FAILED, "non_finite_loss", 1)
    assert "step 26" in run.message
    assert [checkpoint.step for checkpoint in either.run_dir(run_id).published()] == [10, 20]


def test_a_gpu_that_is_full_before_the_first_step_fails_the_run(deployment: Deployment) -> None:
    run = deployment.wait_end(deployment.submit(plans={1: {1: ["exhaust_gpu"]}}))
    assert (run.state, run.reason_code, run.attempt) == (RunState.FAILED, "gpu_out_of_memory", 1)
    assert "lower batch_size" in run.message


def test_a_gpu_that_is_full_later_on_gets_one_more_try(deployment: Deployment) -> None:
    run_id = deployment.submit(plans={attempt: {26: ["exhaust_gpu"]} for attempt in (1, 2)})
    run = deployment.wait_end(run_id)
    assert (run.state, run.reason_code, run.attempt) == (RunState.FAILED, "gpu_out_of_memory", 2)
    assert deployment.attempts(run_id)[1].resumed_step == 20


def test_a_loss_that_is_not_a_number_is_rolled_back_once_when_the_run_wants_it(deployment: Deployment) -> None:
    run_id = deployment.submit(plans={1: {26: ["poison"]}}, nan_policy="rollback")
    run = deployment.wait_end(run_id)
    assert (run.state, run.attempt) == (RunState.COMPLETED, 2)
    assert deployment.attempts(run_id)[1].resumed_step == 20


def test_an_error_of_the_program_fails_the_run_with_its_words(deployment: Deployment) -> None:
    run = deployment.wait_end(deployment.submit(plans={1: {12: ["break"]}}))
    assert (run.state, run.attempt) == (RunState.FAILED, 1)
    assert "sabotage" in run.message
    assert "Traceback" in run.log_tail


def test_a_slow_disk_delays_nothing_but_the_checkpoint(deployment: Deployment) -> None:
    run = deployment.wait_end(deployment.submit(plans={1: {SAVE_EVERY: ["slow_disk"]}}))
    assert (run.state, run.attempt, run.step) == (RunState.COMPLETED, 1, STEPS)


def test_a_flood_of_output_is_cut_and_harms_nobody(deployment: Deployment) -> None:
    run_id = deployment.submit(plans={1: {12: ["flood"]}})
    run = deployment.wait_end(run_id)
    assert (run.state, run.attempt) == (RunState.COMPLETED, 1)
    log = deployment.run_dir(run_id).log(1)
    assert log.stat().st_size < 16 << 20
    assert b"[truncated: " in log.read_bytes()
    shown = deployment.client.get(f"/api/v1/runs/{run_id}/log", params={"attempt": 1, "offset": 0}).json()["text"]
    assert not {"\x1b", "\x00"} & set(shown)
    assert CANARY not in shown
