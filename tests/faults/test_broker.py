"""The broker is down, forgets everything, or says everything a hundred times: the database row is the queue."""

import pytest
import redis

from deployment import Deployment, Plan
from server.db.tables import TERMINAL, RunState
from server.queue import redis_client_url
from services import wait_until

pytestmark = pytest.mark.faults

ENDS_AT_ONCE: Plan = {"start": ["give_up"]}


def forget(deployment: Deployment) -> None:
    redis.Redis.from_url(redis_client_url(deployment.broker.url)).flushall()


def wait_all(deployment: Deployment, run_ids: list[str]) -> None:
    def have_ended() -> bool:
        return all(deployment.run(run_id).state in TERMINAL for run_id in run_ids)

    wait_until(have_ended, timeout_s=60 + 15 * len(run_ids), what=f"{len(run_ids)} runs to end", every_s=0.5)


@pytest.mark.long
def test_all_queued_runs_start_although_the_broker_forgot_them(deployment: Deployment) -> None:
    deployment.stop_worker()
    run_ids = [deployment.submit(plans={1: ENDS_AT_ONCE}) for _ in range(50)]
    forget(deployment)
    deployment.start_worker()
    wait_all(deployment, run_ids)
    assert [len(deployment.attempts(run_id)) for run_id in run_ids] == [1] * 50


@pytest.mark.long
def test_queued_runs_start_after_the_broker_was_killed(deployment: Deployment) -> None:
    held = deployment.submit(plans={1: {5: ["hold"]}})
    queued = [deployment.submit(plans={1: ENDS_AT_ONCE}) for _ in range(3)]
    deployment.wait_held(held)
    deployment.broker.stop()
    deployment.broker.start()
    deployment.go(held)
    assert deployment.wait_end(held).state == RunState.COMPLETED
    wait_all(deployment, queued)


@pytest.mark.long
def test_without_a_broker_runs_are_accepted_and_trained(deployment: Deployment) -> None:
    deployment.broker.stop()
    run_id = deployment.submit()
    run = deployment.wait_end(run_id)
    assert (run.state, run.attempt) == (RunState.COMPLETED, 1)


@pytest.mark.long
def test_a_hundred_deliveries_start_one_attempt(deployment: Deployment) -> None:
    run_id = deployment.submit(plans={1: {5: ["hold"]}})
    deployment.deliver(100)
    deployment.wait_held(run_id)
    deployment.deliver(100)
    deployment.go(run_id)
    run = deployment.wait_end(run_id)
    assert (run.state, len(deployment.attempts(run_id))) == (RunState.COMPLETED, 1)
