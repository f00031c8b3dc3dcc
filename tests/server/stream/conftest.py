"""A server on a real port, looked at more often than usual, and a run that trains."""

from collections.abc import Iterator

import httpx2 as httpx
import pytest
from fastapi import FastAPI

from clients import listening, new_token
from rows import add_attempt, add_point, add_run
from server import stream
from server.db.tables import Run, RunState


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("POLL_ACTIVE_S", "POLL_IDLE_S", "WELCOME_EVERY_S"):
        monkeypatch.setattr(stream, name, 0.3)


@pytest.fixture
def url(app: FastAPI) -> Iterator[str]:
    with listening(app) as address:
        yield address


@pytest.fixture
def client(app: FastAPI, url: str) -> Iterator[httpx.Client]:
    headers = {"Authorization": f"Bearer {new_token(app)}"}
    with httpx.Client(base_url=url, headers=headers, timeout=10) as client:
        yield client


@pytest.fixture
def run(app: FastAPI, url: str) -> Run:
    """A running run with three points."""
    with app.state.db.write() as session:
        run = add_run(session, state=RunState.RUNNING)
        add_attempt(session, run, event_seq=3)
        for seq in (1, 2, 3):
            add_point(session, run, seq, float(seq))
        return run
