"""How many streams there may be, when they end and what wakes them."""

import time

import httpx2 as httpx
import pytest
from fastapi import FastAPI
from sqlmodel import select

from clients import listening, new_token
from event_stream import append, follow, steps, until
from rows import add_attempt, add_run
from server import stream
from server.app import create_app
from server.auth import issue_login_code
from server.db.tables import BrowserSession, Run, RunState
from server.queue import publish_hint
from server.services import sessions
from server.settings import Settings


def test_streams_of_one_login_are_counted(client: httpx.Client, app: FastAPI, run: Run) -> None:
    open_streams = [client.stream("GET", "/events", params={"topics": "runs"}) for _ in range(stream.MAX_STREAMS)]
    for one in open_streams:
        assert one.__enter__().status_code == 200
    refused = client.get("/events", params={"topics": "runs"})
    assert refused.status_code == 429
    assert int(refused.headers["retry-after"]) > 0
    assert client.get("/api/v1/runs").status_code == 200
    for one in open_streams:
        one.__exit__(None, None, None)
    deadline = time.monotonic() + 10
    while sum(app.state.open_streams.values()) and time.monotonic() < deadline:
        time.sleep(0.05)
    with follow(client, f"run:{run.id}") as events:
        assert until(events, "metrics")


def test_logging_out_ends_the_stream(app: FastAPI, url: str, run: Run) -> None:
    with app.state.db.write() as session:
        code = issue_login_code(session)
    with httpx.Client(base_url=url, timeout=10) as browser:
        assert browser.post("/login", data={"code": code}).status_code == 303
        with follow(browser, f"run:{run.id}") as events:
            until(events, "run")
            with app.state.db.write() as session:
                sessions.end(session, session.exec(select(BrowserSession.id)).one())
            assert list(events) is not None
        assert browser.get("/events", params={"topics": "runs"}).status_code == 401


def test_a_hint_wakes_the_stream_long_before_it_would_look(
    sqlite_settings: Settings, broker_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("POLL_ACTIVE_S", "POLL_IDLE_S", "POLL_HINTED_S"):
        monkeypatch.setattr(stream, name, 60)
    app = create_app(sqlite_settings.model_copy(update={"redis_url": broker_url}))
    with listening(app) as url:
        with app.state.db.write() as session:
            run = add_run(session, state=RunState.RUNNING)
            add_attempt(session, run, event_seq=1)
        headers = {"Authorization": f"Bearer {new_token(app)}"}
        with (
            httpx.Client(base_url=url, headers=headers, timeout=10) as client,
            follow(client, f"run:{run.id}") as events,
        ):
            until(events, "run")
            while not app.state.hints.is_connected:
                time.sleep(0.01)
            append(app, run, 2)
            assert publish_hint(broker_url, run.id)
            started = time.monotonic()
            assert steps(until(events, "metrics")) == [2]
            assert time.monotonic() - started < 5
