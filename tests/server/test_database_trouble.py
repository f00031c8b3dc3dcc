"""A database that is locked, down or full: 503 or 507 with a reason, never 500, and nothing is lost after it."""

import asyncio
import gc
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import httpx2 as httpx
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import event
from sqlmodel import select

from clients import browse, serve, visit
from full_disk import FullDisk
from server.app import create_app
from server.db.migrate import upgrade
from server.db.tables import Run
from server.notices import notifier
from server.settings import Settings
from services import Cluster, wait_until


@pytest.fixture(autouse=True)
def _nobody_else_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A look of the server's own threads would keep a connection open just when these tests count on none."""
    monkeypatch.setattr(notifier, "LOOK_EVERY_S", 3600.0)


@contextmanager
def locked(app: FastAPI, *, exclusively: bool = False) -> Iterator[None]:
    """Another program writes to the SQLite database and does not come to an end."""
    other = sqlite3.connect(app.state.settings.data_dir / "sparseboard.db", isolation_level=None, timeout=0.1)
    if exclusively:
        other.execute("PRAGMA locking_mode=EXCLUSIVE")
    wait_until(lambda: _begins(other, app), timeout_s=20, what="the lock")
    other.execute("UPDATE alembic_version SET version_num = version_num")
    yield
    other.execute("ROLLBACK")
    other.close()


def _begins(other: sqlite3.Connection, app: FastAPI) -> bool:
    try:
        other.execute("BEGIN EXCLUSIVE")
    except sqlite3.OperationalError:  # the application still tidies up after its start
        app.state.db.engine.dispose()
        gc.unfreeze()  # a connection that was in use then stays open with the pool that it came from, which the
        gc.collect()  # application may have frozen
        return False
    return True


def hurry(app: FastAPI) -> None:
    """Wait a tenth of a second for a lock instead of ten: what follows is the same."""
    for is_first in (True, False):  # before and after what the application sets
        event.listen(app.state.db.engine, "connect", partial(_impatient), insert=is_first)
    app.state.db.engine.dispose()


def _impatient(connection: Any, _record: Any) -> None:
    connection.execute("PRAGMA busy_timeout=100")


def assert_unavailable(answer: Any) -> None:
    assert answer.status_code == 503, answer.text
    assert int(answer.headers["retry-after"]) > 0
    assert answer.json()["code"] == "unavailable"


def test_a_locked_database_is_read_and_says_when_to_write_again(
    sqlite_app: FastAPI, sqlite_api: TestClient, valid: dict[str, Any]
) -> None:
    hurry(sqlite_app)
    with locked(sqlite_app):
        assert_unavailable(sqlite_api.post("/api/v1/runs", json=valid))
        assert sqlite_api.get("/api/v1/runs").json()["items"] == []
        assert sqlite_api.get("/runs").status_code == 200
    assert sqlite_api.post("/api/v1/runs", json=valid).status_code == 201
    assert len(sqlite_api.get("/api/v1/runs").json()["items"]) == 1


def test_hundreds_of_requests_at_once_are_all_answered(sqlite_settings: Settings) -> None:
    """More than there are threads and connections: none may wait for one that waits for it."""
    app = create_app(sqlite_settings)

    async def ask(headers: Any) -> list[int]:
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost", headers=headers) as client:
            answers = await asyncio.gather(*(client.get("/api/v1/runs/none/timings") for _ in range(200)))
        return [answer.status_code for answer in answers]

    with serve(app) as api:
        assert set(asyncio.run(ask({"Authorization": api.headers["Authorization"]}))) == {404}


def test_a_database_that_another_program_keeps_for_itself_is_unavailable(
    sqlite_settings: Settings, valid: dict[str, Any]
) -> None:
    app = create_app(sqlite_settings)
    with serve(app) as api:
        hurry(app)
        with locked(app, exclusively=True):
            assert_unavailable(api.get("/api/v1/runs"))
            assert_unavailable(api.post("/api/v1/runs", json=valid))
            assert_unavailable(api.get("/readyz"))
            page = api.get("/runs", headers={"Accept": "text/html"})
            assert (page.status_code, page.headers["retry-after"]) == (503, "2")
            assert api.get("/healthz").status_code == 200
        assert api.post("/api/v1/runs", json=valid).status_code == 201


def test_who_only_reads_does_not_wait_for_the_note_of_when_he_was_here(sqlite_settings: Settings) -> None:
    app = create_app(sqlite_settings)
    with browse(app) as browser:
        hurry(app)
        with app.state.db.write() as session:
            session.connection().exec_driver_sql("UPDATE browser_session SET seen_at = seen_at - 100")
        with locked(app):
            assert browser.get("/runs").status_code == 200
            started = time.monotonic()
            assert browser.get("/runs").status_code == 200
            assert app.state.no_touch_until > started  # the second one has not tried again


def test_a_full_disk_under_the_database_stops_writes_alone(
    sqlite_settings: Settings, valid: dict[str, Any], full_disk: FullDisk
) -> None:
    settings = full_disk.move(sqlite_settings)
    app = create_app(settings)
    with serve(app) as api, app.state.db.write() as session:
        session.add(Run(name="there", config={}))
    with serve(app) as api:
        full_disk.fill()
        refused = [api.post("/api/v1/runs", json=valid | {"name": "x" * 200}) for _ in range(3)]
        assert [answer.status_code for answer in refused] == [507] * 3, refused[0].text
        assert refused[0].json()["code"] == "disk_full"
        assert [run["name"] for run in api.get("/api/v1/runs").json()["items"]] == ["there"]
        assert api.get("/runs").status_code == 200
        full_disk.free()
        assert api.post("/api/v1/runs", json=valid).status_code == 201
        with app.state.db.read() as session:
            assert session.connection().exec_driver_sql("PRAGMA integrity_check").scalar() == "ok"


def test_postgres_may_go_and_come_back(tmp_path: Any, valid: dict[str, Any]) -> None:
    with Cluster() as cluster:
        settings = Settings(data_dir=tmp_path, database_url=cluster.url("postgres"))
        upgrade(settings)
        app = create_app(settings)
        with serve(app) as api:
            kept = api.post("/api/v1/runs", json=valid).json()["id"]
            cluster.stop()
            for _ in range(3):
                assert_unavailable(api.post("/api/v1/runs", json=valid))
                assert_unavailable(api.get("/api/v1/runs"))
                assert_unavailable(api.get("/readyz"))
                assert_unavailable(api.get("/events?topics=runs"))
                assert api.get("/runs").status_code == 503
                assert api.get("/healthz").status_code == 200
            cluster.start()
            assert api.get(f"/api/v1/runs/{kept}").status_code == 200
            assert api.post("/api/v1/runs", json=valid).status_code == 201
        cluster.stop()
        with visit(create_app(settings)) as early:  # a server may start before its database
            assert_unavailable(early.get("/readyz"))
            cluster.start()
            wait_until(lambda: early.get("/readyz").status_code == 200, timeout_s=20, what="readiness")
        with app.state.db.read() as session:
            assert len(session.exec(select(Run)).all()) == 2
        app.state.db.engine.dispose()
