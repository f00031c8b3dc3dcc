"""An application on a real database, clients of it, and rows to look at."""

from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlmodel import select

from clients import browse, serve, visit
from rows import add_checkpoint, add_run
from server.app import create_app
from server.db.tables import BrowserSession
from server.settings import Settings


@pytest.fixture
def app(settings: Settings) -> FastAPI:
    """On both engines."""
    return create_app(settings)


@pytest.fixture
def sqlite_app(sqlite_settings: Settings) -> FastAPI:
    """For what does not depend on the engine."""
    return create_app(sqlite_settings)


@pytest.fixture
def anonymous(sqlite_app: FastAPI) -> Iterator[TestClient]:
    with visit(sqlite_app) as client:
        yield client


@pytest.fixture
def api(app: FastAPI) -> Iterator[TestClient]:
    """A program with a token, on both engines."""
    with serve(app) as client:
        yield client


@pytest.fixture
def sqlite_api(sqlite_app: FastAPI) -> Iterator[TestClient]:
    with serve(sqlite_app) as client:
        yield client


@pytest.fixture
def browser(sqlite_app: FastAPI) -> Iterator[TestClient]:
    with browse(sqlite_app) as client:
        yield client


@pytest.fixture
def visitor(app: FastAPI) -> Iterator[TestClient]:
    """A logged-in browser, on both engines, that sends its CSRF token with everything."""
    with browse(app) as client:
        with app.state.db.read() as session:
            client.headers["X-CSRF-Token"] = session.exec(select(BrowserSession.csrf_token)).one()
        yield client


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
