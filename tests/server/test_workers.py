"""Workers: what they show, and draining."""

import re
import time

from fastapi import FastAPI
from fastapi.testclient import TestClient

from rows import add_worker
from server.db.placing import place_queued
from server.db.tables import Run, Worker


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
    for words in ("a100", "50 % busy", "20.0 GB of 80.0 GB", "2 processes", "big-bear", "GPU 0", "Not seen lately"):
        assert words in page
    (token,) = set(re.findall(r'name="csrf_token" value="([^"]+)"', page))
    answer = browser.post(f"/workers/{worker.id}/drain", data={"csrf_token": token})
    assert (answer.status_code, answer.headers["location"]) == (303, f"/workers#worker-{worker.id}")
    with sqlite_app.state.db.read() as session:
        assert session.get_one(Worker, worker.id).state == "draining"
    page = browser.get("/workers").text
    assert "Draining" in page
    assert "Undrain" in page
