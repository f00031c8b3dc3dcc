"""An application on a real database, clients of it, and rows to look at."""

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI
from fastapi.testclient import TestClient
from rows import add_checkpoint, add_run
from starlette.types import ASGIApp

from server.app import create_app
from server.auth import issue_login_code
from server.services import tokens
from server.settings import Settings

BASE_URL = "http://127.0.0.1:8420"


@pytest.fixture
def app(settings: Settings) -> FastAPI:
    return create_app(settings)


@pytest.fixture
def sqlite_app(sqlite_settings: Settings) -> FastAPI:
    """For what does not depend on the engine."""
    return create_app(sqlite_settings)


def running(app: FastAPI) -> Iterator[TestClient]:
    with TestClient(app, base_url=BASE_URL, follow_redirects=False) as client:
        yield client


@pytest.fixture
def anonymous(sqlite_app: FastAPI) -> Iterator[TestClient]:
    yield from running(sqlite_app)


@pytest.fixture
def api(app: FastAPI) -> Iterator[TestClient]:
    """A program with a token, on both engines."""
    for client in running(app):
        authorize(client, app)
        yield client


@pytest.fixture
def sqlite_api(sqlite_app: FastAPI) -> Iterator[TestClient]:
    for client in running(sqlite_app):
        authorize(client, sqlite_app)
        yield client


@pytest.fixture
def browser(sqlite_app: FastAPI) -> Iterator[TestClient]:
    """A logged-in browser; `csrf` of the client's headers is not set."""
    for client in running(sqlite_app):
        with sqlite_app.state.db.write() as session:
            code = issue_login_code(session)
        assert client.post("/login", data={"code": code}).status_code == 303
        yield client


def authorize(client: TestClient, app: FastAPI) -> None:
    with app.state.db.write() as session:
        _, secret = tokens.create_token(session, "test")
    client.headers["Authorization"] = f"Bearer {secret}"


@pytest.fixture
def run_id(api: TestClient, app: FastAPI) -> str:
    with app.state.db.write() as session:
        return add_run(session).id


@pytest.fixture
def checkpoint_id(sqlite_app: FastAPI, sqlite_api: TestClient, sqlite_settings: Settings) -> str:
    """A checkpoint with real files."""
    with sqlite_app.state.db.write() as session:
        return add_checkpoint(session, sqlite_settings, add_run(session)).id


@pytest.fixture
def valid() -> dict[str, Any]:
    """The smallest body of POST /api/v1/runs."""
    return {"config": {"model": "owner/model", "dataset": "owner/data"}}


class Serving:
    """A real server on a real port, for what a test client cannot do: streams and their ends."""

    def __init__(self, app: ASGIApp) -> None:
        self.socket = socket.socket()
        self.socket.bind(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
        config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1)
        self.server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self.server.run, kwargs={"sockets": [self.socket]}, daemon=True)

    def __enter__(self) -> "Serving":
        self._thread.start()
        deadline = time.monotonic() + 20
        while not self.server.started:
            assert time.monotonic() < deadline, "the server did not start"
            time.sleep(0.01)
        return self

    def __exit__(self, *_: object) -> None:
        self.server.should_exit = True
        self._thread.join(timeout=10)
        self.socket.close()


@pytest.fixture
def source_root(tmp_path: Path) -> Path:
    root = tmp_path / "sources"
    root.mkdir()
    return root
