"""The database crashes, stays away, or is locked: the server says 503, training goes on, and nothing is lost."""

import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor

import httpx2 as httpx
import pytest

from deployment import Deployment
from server.db.tables import RunState
from services import wait_until

pytestmark = pytest.mark.faults


def test_postgres_crashes_while_a_run_trains(on_postgres: Deployment) -> None:
    run_id = on_postgres.submit(plans={1: {12: ["hold"]}})
    on_postgres.wait_held(run_id)
    assert on_postgres.cluster is not None
    on_postgres.cluster.stop(at_once=True)
    assert_unavailable(on_postgres)
    on_postgres.go(run_id)
    wait_until(  # on disk, for there is no database to ask
        lambda: on_postgres.run_dir(run_id).published()[-1:] and on_postgres.run_dir(run_id).published()[-1].step >= 20,
        timeout_s=60,
        what="training to go on without a database",
    )
    on_postgres.cluster.start()
    wait_until(lambda: submits(on_postgres), timeout_s=10, what="the server to accept runs again")
    run = on_postgres.wait_end(run_id)
    assert (run.state, run.attempt, run.failures, run.losses) == (RunState.COMPLETED, 1, 0, 0)


@pytest.mark.long
def test_postgres_stays_away_longer_than_a_lease(on_postgres: Deployment) -> None:
    run_id = on_postgres.submit(plans={1: {26: ["hold"]}})
    on_postgres.wait_held(run_id)
    assert on_postgres.cluster is not None
    on_postgres.cluster.stop()
    time.sleep(on_postgres.settings.lease_s + 15)
    on_postgres.cluster.start()
    on_postgres.go(run_id)
    run = on_postgres.wait_end(run_id)
    assert (run.state, run.attempt, run.failures, run.losses) == (RunState.COMPLETED, 1, 0, 0)


@pytest.mark.long
def test_sqlite_is_locked_for_half_a_minute(deployment: Deployment) -> None:
    run_id = deployment.submit(plans={1: {12: ["hold"]}})
    deployment.wait_held(run_id)
    lock = sqlite3.connect(deployment.settings.data_dir / "sparseboard.db", isolation_level=None)
    lock.execute("BEGIN EXCLUSIVE")
    try:
        deployment.go(run_id)
        assert_unavailable(deployment)
        assert deployment.client.get("/api/v1/runs").status_code == 200  # readers see what was there before
        time.sleep(20)
    finally:
        lock.execute("ROLLBACK")
        lock.close()
    run = deployment.wait_end(run_id)
    assert (run.state, run.attempt, run.failures, run.losses) == (RunState.COMPLETED, 1, 0, 0)


def test_a_hundred_submits_at_once_make_a_hundred_runs(either: Deployment) -> None:
    either.stop_worker()
    body = either.body_of(either.model, either.text)

    def submit(number: int) -> httpx.Response:
        with either.new_client() as client:
            return client.post("/api/v1/runs", json=body, headers={"Idempotency-Key": f"parallel-{number}"})

    before = listed(either)
    with ThreadPoolExecutor(100) as pool:
        answers = list(pool.map(submit, range(100)))
        again = list(pool.map(submit, [0] * 100))
    assert {answer.status_code for answer in answers + again} == {201}
    created = {answer.json()["id"] for answer in answers}
    assert len(created) == 100
    assert {answer.json()["id"] for answer in again} == {answers[0].json()["id"]}
    assert listed(either) - before == created
    for run_id in created:
        assert either.ask("cancel", run_id) == RunState.CANCELLED


def listed(deployment: Deployment) -> set[str]:
    """Ids of all runs, page by page."""
    found: set[str] = set()
    cursor = None
    while True:
        query = {"limit": 200} | ({"cursor": cursor} if cursor else {})
        page = deployment.client.get("/api/v1/runs", params=query).json()
        found |= {run["id"] for run in page["items"]}
        cursor = page["next_cursor"]
        if cursor is None:
            return found


def assert_unavailable(deployment: Deployment) -> None:
    answer = post(deployment)
    assert answer.status_code == 503, answer.text
    assert int(answer.headers["Retry-After"]) > 0
    assert answer.headers["Content-Type"] == "application/problem+json"


def submits(deployment: Deployment) -> bool:
    """Whether a run is accepted; it is cancelled again."""
    answer = post(deployment)
    assert answer.status_code in (201, 503), answer.text
    if answer.status_code == 201:
        deployment.ask("cancel", answer.json()["id"])
    return answer.status_code == 201


def post(deployment: Deployment) -> httpx.Response:
    return deployment.client.post("/api/v1/runs", json=deployment.body_of(deployment.model, deployment.text))
