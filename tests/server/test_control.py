"""`/api/v1/runs/{id}/...`: what can be asked of runs, on both databases, and what is answered the second time."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlmodel import Session, col, select

from rows import add_run, claim_by
from server.db import runs as machine
from server.db.tables import ACTIVE, DeviceLease, Run, RunState


@pytest.fixture
def make(app: FastAPI) -> Any:
    """Makes a run in any state, as its history would leave it."""

    def run(state: RunState = RunState.QUEUED, **values: Any) -> str:
        with app.state.db.write() as session:
            row = add_run(session, **values)
            bring(session, row.id, state)
            return row.id

    return run


def bring(session: Session, run_id: str, state: RunState) -> None:
    if state == RunState.QUEUED:
        return
    fence = claim_by(session, run_id, run_id)
    assert fence is not None
    if state == RunState.RUNNING:
        machine.note_first_step(session, run_id, fence)
    elif state == RunState.STOPPING:
        machine.request_cancel(session, run_id, actor="user")
    elif state not in ACTIVE:
        if state == RunState.CANCELLED:
            machine.request_cancel(session, run_id, actor="user")
        assert machine.release(session, run_id, fence, state, actor="supervisor", outcome="")


@contextmanager
def change(app: FastAPI) -> Iterator[Session]:
    with app.state.db.write() as session:
        yield session


def ask(api: TestClient, run_id: str, what: str, **body: Any) -> tuple[int, str]:
    """Status and state, or for a conflict the state that it names."""
    answer = api.post(f"/api/v1/runs/{run_id}/{what}", **({"json": body} if body else {}))
    content = answer.json()
    return answer.status_code, content["errors"][0]["code"] if answer.status_code == 409 else content["state"]


def kinds(api: TestClient, run_id: str) -> list[str]:
    return [event["kind"] for event in api.get(f"/api/v1/runs/{run_id}/events").json()["items"]]


ANSWERS = {
    "cancel": {
        RunState.QUEUED: (200, "cancelled"),
        RunState.RUNNING: (200, "stopping"),
        RunState.STOPPING: (200, "stopping"),
        RunState.PAUSED: (200, "cancelled"),
        RunState.RETRY_WAIT: (200, "cancelled"),
        RunState.COMPLETED: (200, "completed"),
        RunState.FAILED: (200, "failed"),
        RunState.CANCELLED: (200, "cancelled"),
    },
    "pause": {
        RunState.QUEUED: (200, "paused"),
        RunState.STARTING: (200, "stopping"),
        RunState.RUNNING: (200, "stopping"),
        RunState.STOPPING: (409, "stopping"),
        RunState.PAUSED: (200, "paused"),
        RunState.RETRY_WAIT: (200, "paused"),
        RunState.COMPLETED: (409, "completed"),
        RunState.FAILED: (409, "failed"),
        RunState.CANCELLED: (409, "cancelled"),
    },
    "resume": {
        RunState.QUEUED: (200, "queued"),
        RunState.RUNNING: (200, "running"),
        RunState.STOPPING: (409, "stopping"),
        RunState.PAUSED: (200, "queued"),
        RunState.RETRY_WAIT: (200, "retry_wait"),
        RunState.COMPLETED: (409, "completed"),
        RunState.CANCELLED: (409, "cancelled"),
    },
    "requeue": {
        RunState.QUEUED: (200, "queued"),
        RunState.RUNNING: (200, "stopping"),
        RunState.STOPPING: (409, "stopping"),
        RunState.PAUSED: (409, "paused"),
        RunState.RETRY_WAIT: (200, "queued"),
        RunState.COMPLETED: (409, "completed"),
    },
}


@pytest.mark.parametrize("what", ANSWERS)
def test_every_request_answers_with_the_real_state_however_often(api: TestClient, make: Any, what: str) -> None:
    for state, expected in ANSWERS[what].items():
        run_id = make(state)
        assert ask(api, run_id, what) == expected, state
        seen = kinds(api, run_id)
        assert ask(api, run_id, what) == expected, state
        assert kinds(api, run_id) == seen, state


def test_a_pause_frees_the_devices_and_resuming_spends_nothing(api: TestClient, app: FastAPI, make: Any) -> None:
    run_id = make(RunState.RUNNING)
    for _ in range(5):
        assert ask(api, run_id, "pause") == (200, "stopping")
        with change(app) as session:
            fence = session.get_one(Run, run_id).fence
            assert machine.heartbeat(session, run_id, fence) == ("stopping", "pause")
            assert machine.release(session, run_id, fence, RunState.PAUSED, actor="supervisor", outcome="stopped")
            assert session.exec(select(DeviceLease)).all() == []
        assert ask(api, run_id, "resume") == (200, "queued")
        with change(app) as session:
            assert claim_by(session, run_id) == fence + 1
    run = api.get(f"/api/v1/runs/{run_id}").json()
    assert (run["failures"], run["losses"], run["attempt"]) == (0, 0, 6)


def test_resuming_while_it_is_being_paused_queues_it_when_it_has_stopped(
    api: TestClient, app: FastAPI, make: Any
) -> None:
    run_id = make(RunState.RUNNING)
    assert ask(api, run_id, "pause") == (200, "stopping")
    assert ask(api, run_id, "resume") == (200, "stopping")
    with change(app) as session:
        assert not machine.release(session, run_id, 1, RunState.CANCELLED, actor="supervisor", outcome="")
        assert machine.release(session, run_id, 1, RunState.QUEUED, actor="supervisor", outcome="interrupted")
    assert api.get(f"/api/v1/runs/{run_id}").json()["intent"] == "run"


def test_a_cancel_overrules_a_pause_and_nothing_overrules_a_cancel(api: TestClient, make: Any) -> None:
    run_id = make(RunState.RUNNING)
    assert ask(api, run_id, "pause") == (200, "stopping")
    assert ask(api, run_id, "cancel") == (200, "stopping")
    for what in ("pause", "resume", "requeue"):
        assert ask(api, run_id, what) == (409, "stopping")
    assert api.get(f"/api/v1/runs/{run_id}").json()["intent"] == "cancel"


def test_a_failed_run_has_one_successor(api: TestClient, make: Any) -> None:
    run_id = make(RunState.FAILED, name="first", priority=3)
    for state in (RunState.QUEUED, RunState.RUNNING, RunState.COMPLETED):
        assert ask(api, make(state), "retry") == (409, state)
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: api.post(f"/api/v1/runs/{run_id}/retry"), range(8)))
    assert {answer.status_code for answer in answers} == {201}
    (successor,) = {answer.json()["id"] for answer in answers}
    run = api.get(f"/api/v1/runs/{successor}").json()
    assert (run["name"], run["state"], run["retry_of"], run["priority"]) == ("first", "queued", run_id, 3)
    assert answers[0].headers["location"] == f"/api/v1/runs/{successor}"
    assert kinds(api, run_id)[-1] == "retried"


def test_a_clone_starts_from_the_beginning(api: TestClient, make: Any, app: FastAPI) -> None:
    run_id = make(RunState.COMPLETED, name="x" * 200)
    first = api.post(f"/api/v1/runs/{run_id}/clone", headers={"Idempotency-Key": "k"})
    again = api.post(f"/api/v1/runs/{run_id}/clone", headers={"Idempotency-Key": "k"})
    other = api.post(f"/api/v1/runs/{run_id}/clone").json()
    assert first.status_code == 201
    assert first.json()["id"] == again.json()["id"] != other["id"]
    original = api.get(f"/api/v1/runs/{run_id}").json()
    assert (other["config"], other["cloned_from"], other["retry_of"]) == (original["config"], run_id, None)
    assert (len(other["name"]), other["step"], other["state"]) == (200, 0, "queued")


def order(app: FastAPI) -> list[str]:
    with app.state.db.read() as session:
        return [run.name for run in machine.next_queued(session)]


def test_runs_are_moved_beside_each_other(api: TestClient, app: FastAPI, make: Any) -> None:
    a, b, c, d = (make(name=name, priority=priority) for name, priority in (("a", 1), ("b", 0), ("c", 0), ("d", 0)))
    assert order(app) == ["a", "b", "c", "d"]
    assert ask(api, d, "move", ahead_of=b) == (200, "queued")
    assert order(app) == ["a", "d", "b", "c"]
    assert ask(api, d, "move", behind_of=b) == (200, "queued")
    assert order(app) == ["a", "b", "d", "c"]
    ask(api, c, "move", ahead_of=a)
    assert order(app) == ["c", "a", "b", "d"]
    assert api.get(f"/api/v1/runs/{c}").json()["priority"] == 1
    ask(api, c, "move", to="last")
    assert order(app) == ["a", "b", "d", "c"]
    ask(api, c, "move", to="first")
    assert order(app) == ["c", "a", "b", "d"]
    seen = kinds(api, c)
    ask(api, c, "move", to="first")
    ask(api, c, "move", ahead_of=a)
    assert (kinds(api, c), order(app)) == (seen, ["c", "a", "b", "d"])
    make(name="e")
    assert order(app)[-1] == "e"


def test_a_gap_between_two_ranks_is_never_exhausted(api: TestClient, app: FastAPI, make: Any) -> None:
    first, second, *others = (make(name=name) for name in "abxyz")
    with change(app) as session:
        for n, run_id in enumerate((first, second)):
            session.get_one(Run, run_id).rank = 1e9 + n * 1e-6
    for _ in range(20):
        for name, run_id in zip("xyz", others, strict=True):
            ask(api, run_id, "move", ahead_of=second)
            names = order(app)
            assert (names[0], names.index("b") - names.index(name)) == ("a", 1)
    with change(app) as session:
        ranks = session.exec(select(Run.rank).order_by(col(Run.rank))).all()
    assert len(set(ranks)) == 5


def test_what_has_no_place_in_the_queue_is_not_moved(api: TestClient, make: Any) -> None:
    queued, running = make(), make(RunState.RUNNING)
    assert ask(api, running, "move", to="first") == (409, "running")
    assert ask(api, queued, "move", ahead_of=running) == (409, "running")
    for body in ({}, {"to": "middle"}, {"to": "first", "ahead_of": running}, {"ahead_of": "no id"}):
        assert api.post(f"/api/v1/runs/{queued}/move", json=body).status_code == 422
    assert api.post(f"/api/v1/runs/{queued}/move", json={"ahead_of": "0" * 26}).status_code == 404


def test_a_priority_is_changed(api: TestClient, app: FastAPI, make: Any) -> None:
    a, b, done = make(name="a"), make(name="b"), make(RunState.COMPLETED)
    for _ in range(2):
        assert api.patch(f"/api/v1/runs/{b}", json={"priority": 5}).json()["priority"] == 5
    assert order(app) == ["b", "a"]
    assert kinds(api, b) == ["queued", "moved"]
    assert api.patch(f"/api/v1/runs/{a}", json={"priority": 10**6}).status_code == 422
    assert api.patch(f"/api/v1/runs/{done}", json={"priority": 1}).status_code == 409


def test_many_are_cancelled_at_once(api: TestClient, make: Any) -> None:
    queued, running, done, other = make(), make(RunState.RUNNING), make(RunState.COMPLETED), make(RunState.PAUSED)
    cancel = lambda **body: api.post("/api/v1/runs/cancel", json=body)  # noqa: E731
    assert cancel(ids=[queued, "0" * 26]).status_code == 404
    assert [item["state"] for item in cancel(ids=[running, queued, done, queued]).json()["items"]] == [
        *("stopping", "cancelled", "completed")
    ]
    assert {item["id"]: item["state"] for item in cancel(all=True).json()["items"]} == {
        running: "stopping",
        other: "cancelled",
    }
    for body in ({}, {"all": False}, {"ids": []}, {"ids": [queued], "all": True}):
        assert cancel(**body).status_code == 422
