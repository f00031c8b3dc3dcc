"""What can be done to a run from its page and from the list: the buttons, and what becomes of the run."""

import re
from itertools import product

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlmodel import col, select

from rows import add_attempt, add_run
from seed import TORCHRUN
from server.db.runs import request_cancel, request_pause, requeue, resume
from server.db.session import Database
from server.db.tables import ACTIVE, Intent, Run, RunEvent, RunState
from server.pages.actions import legal_actions
from server.pages.advice import ADVICE
from server.services.logs import training_lines
from worker.failures import FAILURES

REQUESTS = {"cancel": request_cancel, "pause": request_pause, "resume": resume, "requeue": requeue}
HTMX = {"HX-Request": "true"}


def buttons(page: str) -> set[str]:
    """The actions that a page offers, by the addresses of its forms; what people write on a run is no action."""
    return set(re.findall(r'action="/runs/\w{26}/(\w+)"', page)) - {"about", "archive", "restore"}


def state_of(app: FastAPI, run_id: str) -> tuple[str, str]:
    with app.state.db.read() as session:
        run = session.get_one(Run, run_id)
        return run.state, run.intent


@pytest.fixture
def queued(app: FastAPI, visitor: TestClient) -> str:
    with app.state.db.write() as session:
        return add_run(session, name="SmolLM2, layer 5").id


@pytest.mark.parametrize(("state", "intent"), list(product(RunState, Intent)))
@pytest.mark.parametrize("settings", ["sqlite"], indirect=True)
def test_the_actions_of_a_state_are_those_that_change_something(
    database: Database, state: RunState, intent: Intent
) -> None:
    for name, request in REQUESTS.items():
        with database.write() as session:
            run = add_run(session, state=state, intent=intent)
            if state in ACTIVE:
                add_attempt(session, run)
            run_id, is_offered = run.id, name in legal_actions(run)
        with database.write() as session:
            request(session, run_id, actor="test")
        with database.read() as session:
            after = session.get_one(Run, run_id)
            moves = session.exec(select(RunEvent).where(RunEvent.run_id == run_id, RunEvent.actor == "test")).all()
            assert ((after.state, after.intent) != (state, intent) or bool(moves)) == is_offered, name


def test_a_run_is_paused_and_resumed_and_the_page_shows_the_real_state(
    app: FastAPI, visitor: TestClient, queued: str
) -> None:
    assert buttons(visitor.get(f"/runs/{queued}").text) == {"pause", "cancel"}
    for _ in range(2):
        answer = visitor.post(f"/runs/{queued}/pause")
        assert (answer.status_code, answer.headers["location"]) == (303, f"/runs/{queued}")
        assert state_of(app, queued) == ("paused", "pause")
    page = visitor.get(f"/runs/{queued}").text
    assert buttons(page) == {"resume", "cancel"}
    assert "Queued" in page
    visitor.post(f"/runs/{queued}/resume")
    assert state_of(app, queued) == ("queued", "run")


def test_htmx_gets_the_region_where_it_asked(visitor: TestClient, queued: str) -> None:
    answer = visitor.post(f"/runs/{queued}/pause", headers=HTMX)
    assert answer.headers["location"] == f"/runs/{queued}/head"
    head = visitor.get(answer.headers["location"], headers=HTMX).text
    assert "<html" not in head
    assert buttons(head) == {"resume", "cancel"}
    answer = visitor.post(f"/runs/{queued}/resume", data={"back": "queue"}, headers=HTMX)
    assert answer.headers["location"] == "/queue"
    assert visitor.get("/queue", headers=HTMX).text.lstrip().startswith('<div id="queue"')


def test_what_cannot_be_done_is_refused_with_the_real_state(app: FastAPI, visitor: TestClient, queued: str) -> None:
    with app.state.db.write() as session:
        session.get_one(Run, queued).state = RunState.COMPLETED
    answer = visitor.post(f"/runs/{queued}/pause")
    assert answer.status_code == 409
    assert "is completed" in answer.text
    assert buttons(visitor.get(f"/runs/{queued}").text) == set()
    assert visitor.post(f"/runs/{queued}/explode").status_code == 422


def test_many_runs_are_cancelled_or_paused_at_once(app: FastAPI, visitor: TestClient) -> None:
    with app.state.db.write() as session:
        over = add_run(session, state=RunState.COMPLETED).id
        waiting = [add_run(session).id for _ in range(3)]
    page = visitor.get("/runs").text
    assert all(f'value="{run_id}" id="pick' in page for run_id in (*waiting, over))
    answer = visitor.post("/runs/bulk", data={"action": "pause", "run": [waiting[0], over]}).text
    assert "1 run asked to pause" in answer
    assert "is completed: there is nothing to pause" in answer
    assert state_of(app, waiting[0])[0] == "paused"
    answer = visitor.post("/runs/bulk", data={"action": "cancel", "run": [*waiting, over], "back": "state=queued"}).text
    assert "3 runs cancelled" in answer
    assert 'href="/runs?state=queued"' in answer
    assert [state_of(app, run_id)[0] for run_id in (*waiting, over)] == ["cancelled"] * 3 + ["completed"]
    assert "No run was chosen" in visitor.post("/runs/bulk", data={"action": "cancel"}).text


def test_a_failed_run_says_why_what_to_do_and_what_its_log_ended_with(app: FastAPI, visitor: TestClient) -> None:
    log = "".join(f"line {n}\n" for n in range(40)) + "HookpointError: no module matches layers.99\n" + TORCHRUN
    values = {"reason_code": "hookpoint_error", "message": "no module matches layers.99", "log_tail": log}
    with app.state.db.write() as session:
        run_id = add_run(session, state=RunState.FAILED, **values).id
    page = visitor.get(f"/runs/{run_id}").text
    assert "<h2>No module matches layers.99</h2>" in page
    assert ADVICE["hookpoint_error"].sentence in page
    assert "HookpointError: no module" in page
    assert "line 0\n" not in page
    assert "ChildFailedError" not in page


def test_a_failed_run_is_retried_once(app: FastAPI, visitor: TestClient) -> None:
    with app.state.db.write() as session:
        failed = add_run(session, state=RunState.FAILED, message="the loss became NaN").id
    assert buttons(visitor.get(f"/runs/{failed}").text) == {"retry"}
    first, second = (visitor.post(f"/runs/{failed}/retry").headers["location"] for _ in range(2))
    assert first == second
    page = visitor.get(f"/runs/{failed}").text
    assert f'<a href="{first}">' in page
    assert buttons(page) == set()
    assert f'<a href="/runs/{failed}">' in visitor.get(first).text


def test_a_run_between_two_tries_says_when_and_can_be_retried_now(app: FastAPI, visitor: TestClient) -> None:
    with app.state.db.write() as session:
        run_id = add_run(session, state=RunState.RETRY_WAIT, not_before=4e9, message="the GPU broke").id
    page = visitor.get(f"/runs/{run_id}").text
    assert re.search(r'Tries again <time [^>]*data-until="4000000000.0">in ', page)
    assert "Retry now" in page
    visitor.post(f"/runs/{run_id}/requeue")
    assert state_of(app, run_id) == ("queued", "run")


def test_the_history_is_told_in_words(visitor: TestClient, queued: str) -> None:
    visitor.post(f"/runs/{queued}/pause")
    lists = re.sub(r"<[^>]+>", " ", visitor.get(f"/runs/{queued}/lists").text)
    assert re.search(r"Queued\s+→\s+to\s+paused\s+by user\s+.*Pause requested", " ".join(lists.split()))


def test_a_clone_remembers_where_it_comes_from(app: FastAPI, visitor: TestClient, queued: str) -> None:
    form = visitor.get(f"/runs/new?from={queued}").text
    assert f'name="cloned_from" value="{queued}"' in form
    values = {"name": "the copy", "config.model": "owner/model", "config.dataset": "owner/data", "config.sae.k": "x"}
    refused = visitor.post("/runs/new", data=values | {"cloned_from": queued})
    assert refused.status_code == 422
    assert f'name="cloned_from" value="{queued}"' in refused.text
    made = visitor.post("/runs/new", data=values | {"cloned_from": queued, "config.sae.k": "4"})
    with app.state.db.read() as session:
        clone = session.exec(select(Run).where(col(Run.name) == "the copy")).one()
        assert clone.cloned_from == queued
    assert f'cloned from <a href="/runs/{queued}">' in visitor.get(made.headers["location"]).text


def test_every_failure_class_has_its_advice() -> None:
    assert set(FAILURES) == set(ADVICE)


def test_the_launcher_does_not_bury_what_training_wrote() -> None:
    assert training_lines("a\nb\n" + TORCHRUN) == ["a", "b"]
    assert training_lines("a\nb") == ["a", "b"]
    assert training_lines(TORCHRUN) == []
