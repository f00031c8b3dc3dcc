"""Clients of an application: in process, or over a real port for streams and their ends."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from fastapi import FastAPI
from fastapi.testclient import TestClient
from starlette.types import ASGIApp

from server.auth import issue_login_code
from server.services import tokens
from services import wait_until

BASE_URL = "http://127.0.0.1:8420"


@contextmanager
def visit(app: FastAPI) -> Iterator[TestClient]:
    """A client that has not logged in."""
    with TestClient(app, base_url=BASE_URL, follow_redirects=False) as client:
        yield client


@contextmanager
def serve(app: FastAPI) -> Iterator[TestClient]:
    """A program with a token."""
    with visit(app) as client:
        client.headers["Authorization"] = f"Bearer {new_token(app)}"
        yield client


@contextmanager
def browse(app: FastAPI) -> Iterator[TestClient]:
    """A logged-in browser."""
    with visit(app) as client:
        with app.state.db.write() as session:
            code = issue_login_code(session)
        assert client.post("/login", data={"code": code}).status_code == 303
        yield client


def new_token(app: FastAPI) -> str:
    with app.state.db.write() as session:
        return tokens.create_token(session, "test")[1]


@contextmanager
def listening(app: ASGIApp) -> Iterator[str]:
    """A real server on a free port of loopback; yields its address."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        wait_until(lambda: server.started, timeout_s=20, what="the server to start")
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        thread.join(timeout=10)
