"""The page of the queue: who trains where, who waits why, in which order, and how the order is changed."""

import re
import time

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from rows import add_run, claim_by
from server.db.tables import QueueState, Run, RunState, Worker
from server.services import lineup

HTMX = {"HX-Request": "true"}


def order(client: TestClient) -> list[str]:
    """Names of the queued runs, as the page has them."""
    page = client.get("/queue").text
    rows = re.findall(r'<li id="queued-.*?</li>', page, flags=re.DOTALL)
    return [re.findall(r'class="name"[^>]*>([^<]*)<', row)[0] for row in rows]


@pytest.fixture
def ids(app: FastAPI, visitor: TestClient) -> dict[str, str]:
    """Three queued runs, in this order."""
    with app.state.db.write() as session:
        return {name: add_run(session, name=name, rank=float(n)).id for n, name in enumerate(("one", "two", "three"))}


def test_an_empty_queue_teaches(visitor: TestClient) -> None:
    page = visitor.get("/queue").text
    assert "Nothing trains, nothing waits" in page
    assert "Cancel all" not in page


def test_every_run_that_is_not_over_stands_in_its_group(app: FastAPI, visitor: TestClient, ids: dict[str, str]) -> None:
    with app.state.db.write() as session:
        worker = Worker(name="lab", host="lab", pid=1)
        session.add(worker)
        session.flush()
        assert claim_by(session, ids["one"], worker.id, host="lab", gpus=[0, 3]) == 1
        session.get_one(Run, ids["two"]).waits_for = "needs 2 GPUs, 1 is free"
        add_run(session, name="held", state=RunState.PAUSED)
        add_run(session, name="again", state=RunState.RETRY_WAIT, not_before=time.time() + 90, message="it crashed")
        add_run(session, name="done", state=RunState.COMPLETED)
    page = visitor.get("/queue").text
    assert "lab, GPU 0, 3" in page
    assert "Needs 2 GPUs, 1 is free" in page
    assert re.search(r"Tries again <time[^>]*>in 1 min", page)
    assert "Waits for a worker" in page
    assert re.findall(r'<h2 id="retrying-title">(.*?)</h2>', page) == ["Retry wait"]
    assert order(visitor) == ["two", "three"]
    assert re.findall(r'<li id="(\w+)-', page) == ["active", "queued", "queued", "retrying", "paused"]


def test_a_run_is_moved_relative_to_another(visitor: TestClient, ids: dict[str, str]) -> None:
    answer = visitor.post("/queue/move", data={"run": ids["three"], "ahead_of": ids["one"]})
    assert answer.headers["location"] == f"/queue?moved={ids['three']}"
    assert order(visitor) == ["three", "one", "two"]
    for _ in range(2):
        visitor.post("/queue/move", data={"run": ids["three"], "behind_of": ids["one"]})
        assert order(visitor) == ["one", "three", "two"]
    said = visitor.get(f"/queue?moved={ids['three']}", headers=HTMX).text
    assert '<hx-partial hx-target="#said" hx-swap="innerHTML">three is now number 2 of 3 in the queue.' in said
    assert "hx-partial" not in visitor.get("/queue", headers=HTMX).text


def test_the_buttons_move_by_one_without_a_script(visitor: TestClient, ids: dict[str, str]) -> None:
    page = visitor.get("/queue").text
    assert re.search(rf'id="up-{ids["one"]}"[^>]* disabled', page)
    assert re.search(rf'id="down-{ids["three"]}"[^>]* disabled', page)
    up = re.search(rf'id="up-{ids["three"]}" name="(\w+)" value="(\w+)"', page)
    assert up
    visitor.post("/queue/move", data={"run": ids["three"], up[1]: up[2]})
    assert order(visitor) == ["one", "three", "two"]


def test_a_run_that_has_started_has_no_place_any_more(app: FastAPI, visitor: TestClient, ids: dict[str, str]) -> None:
    with app.state.db.write() as session:
        claim_by(session, ids["one"])
    answer = visitor.post("/queue/move", data={"run": ids["three"], "ahead_of": ids["one"]})
    assert answer.status_code == 409
    assert "is starting" in answer.text
    assert visitor.post("/queue/move", data={"run": ids["three"]}).status_code == 404
    assert order(visitor) == ["two", "three"]


def test_priority_comes_before_rank(visitor: TestClient, ids: dict[str, str]) -> None:
    visitor.post("/queue/priority", data={"run": ids["three"], "priority": "5"})
    assert order(visitor) == ["three", "one", "two"]
    for wrong in ("5000", "high", ""):
        assert visitor.post("/queue/priority", data={"run": ids["one"], "priority": wrong}).status_code == 422
    assert order(visitor) == ["three", "one", "two"]


def test_the_queue_is_paused_and_every_page_says_so(app: FastAPI, visitor: TestClient, ids: dict[str, str]) -> None:
    for _ in range(2):
        assert visitor.post("/queue/pause").headers["location"] == "/queue"
    with app.state.db.read() as session:
        assert session.get_one(QueueState, 1).paused
    for path in ("/queue", "/runs", f"/runs/{ids['one']}"):
        page = visitor.get(path).text
        assert "The queue is paused" in page
        assert 'action="/queue/resume"' in page
    assert 'action="/queue/pause"' not in visitor.get("/queue").text
    visitor.post("/queue/resume")
    assert "The queue is paused" not in visitor.get("/queue").text


def test_everything_is_cancelled_at_once(app: FastAPI, visitor: TestClient, ids: dict[str, str]) -> None:
    with app.state.db.write() as session:
        claim_by(session, ids["one"])
    assert "Cancel 3 runs?" in visitor.get("/queue").text
    visitor.post("/queue/cancel")
    with app.state.db.read() as session:
        assert [session.get_one(Run, ids[name]).state for name in ids] == ["stopping", "cancelled", "cancelled"]
    assert "Ending after the current step" in visitor.get("/queue").text


def test_a_long_queue_is_counted_but_not_all_listed(app: FastAPI, visitor: TestClient) -> None:
    with app.state.db.write() as session:
        for n in range(lineup.SHOWN + 5):
            add_run(session, name=f"run {n}", rank=float(n))
    page = visitor.get("/queue").text
    assert f"{lineup.SHOWN + 5}, the first {lineup.SHOWN} shown" in page
    assert len(order(visitor)) == lineup.SHOWN


def test_names_are_escaped(app: FastAPI, visitor: TestClient) -> None:
    with app.state.db.write() as session:
        add_run(session, name="<b>bold</b>", waits_for="<i>why</i>")
    page = visitor.get("/queue").text
    assert "<b>bold" not in page
    assert "<i>why" not in page
