"""Workers: what they show, and draining."""

import re
import time

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlmodel import Session, select

from rows import add_run, add_worker, claim_by
from server.cli import main
from server.db.placing import place_queued
from server.db.runs import quarantine, release, request_cancel
from server.db.session import Database
from server.db.tables import Run, RunEvent, RunState, Worker
from server.db.workers import held_devices
from server.settings import Settings


def test_draining_is_asked_for_as_often_as_one_likes(api: TestClient, app: FastAPI) -> None:
    with app.state.db.write() as session:
        worker = add_worker(session, labels=["a100"], num_gpus=1)
    for _ in range(2):
        answer = api.post(f"/api/v1/workers/{worker.id}/drain").json()
        assert (answer["state"], answer["labels"], answer["name"]) == ("draining", ["a100"], "here")
    assert api.get("/api/v1/workers").json()["items"][0]["state"] == "draining"
    for _ in range(2):
        assert api.post(f"/api/v1/workers/{worker.id}/undrain").json()["state"] == "active"
    assert api.post("/api/v1/workers/nobody/drain").status_code == 404


@pytest.fixture
def quarantined(app: FastAPI) -> tuple[str, str]:
    """Ids of a worker that is gone, and of the run after which its GPU is in quarantine."""
    with app.state.db.write() as session:
        return quarantine_a_gpu(session)


def quarantine_a_gpu(session: Session) -> tuple[str, str]:
    worker = add_worker(session, "old-name", num_gpus=2, seen_at=time.time() - 1000)
    run_id = add_run(session).id
    fence = claim_by(session, run_id, worker.id, gpus=[1]) or 0
    quarantine(session, run_id, fence, actor="supervisor", reason="a process hangs", processes=[])
    request_cancel(session, run_id, actor="user")
    release(session, run_id, fence, RunState.CANCELLED, actor="supervisor", outcome="stopped")
    return worker.id, run_id


def lifted_by(session: Session) -> list[str]:
    return list(session.exec(select(RunEvent.actor).where(RunEvent.kind == "quarantine_lifted")))


def test_a_quarantine_is_lifted_by_who_has_looked(api: TestClient, app: FastAPI, quarantined: tuple[str, str]) -> None:
    worker_id, run_id = quarantined
    (item,) = api.get("/api/v1/workers/quarantine").json()["items"]
    assert (item["worker_id"], item["run_id"], item["kind"], item["index"]) == (worker_id, run_id, "gpu", 1)
    url = f"/api/v1/workers/{worker_id}/quarantine/gpu/1/lift"
    for body in ({}, {"confirm": False}):
        assert api.post(url, json=body).status_code == 422
    other = api.post(f"/api/v1/workers/{worker_id}/quarantine/gpu/0/lift", json={"confirm": True})
    assert len(other.json()["items"]) == 1
    for _ in range(2):
        answer = api.post(url, json={"confirm": True})
        assert (answer.status_code, answer.json()) == (200, {"items": []})
    assert api.post("/api/v1/workers/nobody/quarantine/gpu/1/lift", json={"confirm": True}).status_code == 404
    with app.state.db.read() as session:
        assert len(lifted_by(session)) == 1
        assert held_devices(session) == []


def test_the_command_line_lifts_a_quarantine(sqlite_settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    database = Database(sqlite_settings)
    with database.write() as session:
        _, run_id = quarantine_a_gpu(session)
    folder = ["--data-dir", str(sqlite_settings.data_dir)]
    assert main(["workers", "list", *folder]) == 0
    assert f"in quarantine: old-name gpu 1, run {run_id}: a process hangs" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["workers", "lift", "old-name", "gpu", "1", *folder])
    assert main(["workers", "lift", "nobody", "gpu", "1", "--confirm", *folder]) == 1
    capsys.readouterr()
    assert main(["workers", "lift", "old-name", "gpu", "1", "--confirm", *folder]) == 0
    assert capsys.readouterr().out == "old-name  silent\n"
    assert main(["workers", "lift", "old-name", "gpu", "1", "--confirm", *folder]) == 1
    assert "gpu 1 of old-name is not in quarantine" in capsys.readouterr().err
    with database.read() as session:
        assert lifted_by(session) == ["command line"]


def test_the_page_explains_a_quarantine_and_lifts_it(browser: TestClient, sqlite_app: FastAPI) -> None:
    with sqlite_app.state.db.write() as session:
        worker_id, _ = quarantine_a_gpu(session)
    page = browser.get("/workers").text
    for words in ("GPU 1 is in quarantine", "a process hangs", "This worker is not there to look for them"):
        assert words in page
    (token,) = set(re.findall(r'name="csrf_token" value="([^"]+)"', page))
    url = f"/workers/{worker_id}/quarantine/gpu/1/lift"
    assert browser.post(url, data={"csrf_token": token}).status_code == 422  # not confirmed
    assert browser.post(url, data={"csrf_token": token, "confirm": "yes"}).status_code == 303
    assert "is in quarantine" not in browser.get("/workers").text
    with sqlite_app.state.db.read() as session:
        assert len(lifted_by(session)) == 1


def test_the_page_shows_devices_load_runs_and_the_button(browser: TestClient, sqlite_app: FastAPI) -> None:
    with sqlite_app.state.db.write() as session:
        worker = add_worker(session, labels=["a100"], num_gpus=1)
        load = {"utilization_frac": 0.5, "used_bytes": 20 * 10**9, "num_processes": 2}
        worker.devices = [worker.devices[0] | load]
        add_worker(session, "gone", seen_at=time.time() - 1000)
        session.add(Run(name="big-bear", config={}))
        session.flush()
        place_queued(session, actor="test", now=time.time())
    page = browser.get("/workers").text
    for words in ("a100", "50.0% busy", "20.0 GB of 80.0 GB", "2 processes", "big-bear", "GPU 0", "Not seen lately"):
        assert words in page
    (token,) = set(re.findall(r'name="csrf_token" value="([^"]+)"', page))
    answer = browser.post(f"/workers/{worker.id}/drain", data={"csrf_token": token})
    assert (answer.status_code, answer.headers["location"]) == (303, f"/workers#worker-{worker.id}")
    with sqlite_app.state.db.read() as session:
        assert session.get_one(Worker, worker.id).state == "draining"
    page = browser.get("/workers").text
    assert "Draining" in page
    assert "Undrain" in page
