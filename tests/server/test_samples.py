"""What workers measure of their machines: how long it is kept, and how it is shown."""

import time

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlmodel import Session, select

from rows import add_run, add_worker, claim_by
from server.db.session import Database
from server.db.tables import Worker, WorkerSample
from server.db.workers import add_sample
from server.services import samples
from server.services.worker_feed import WorkerFeed

HOST = {
    "cpu_frac": 0.25,
    "memory_used_bytes": 12 * 10**9,
    "memory_bytes": 64 * 10**9,
    "disk_free_bytes": 3 * 10**12,
    "disk_bytes": 4 * 10**12,
}
DAY_S = 86_400.0


def beat(session: Session, worker: Worker, *, start: float, seconds: int, every: int = 10) -> None:
    for ts in range(0, seconds, every):
        add_sample(session, worker, HOST, now=start + ts)
        session.flush()


def test_a_day_is_kept_whole_and_a_month_thinly(database: Database) -> None:
    start = 1.7e9
    with database.write() as session:
        worker, other = add_worker(session), add_worker(session, "other")
        beat(session, worker, start=start, seconds=1200)
        beat(session, other, start=start, seconds=30)
    with database.write() as session:
        add_sample(session, worker, HOST, now=start + DAY_S + 2000)
        # 1.7e9 is 200 s into five minutes
        kept = session.exec(select(WorkerSample.ts).where(WorkerSample.worker_id == worker.id)).all()
        assert sorted(ts - start for ts in kept) == [
            0,
            100,
            400,
            700,
            1000,
            DAY_S + 2000,
        ]
        assert len(samples.list_samples(session, other.id, since=0, hours=720)) == 1
        add_sample(session, worker, HOST, now=start + 31 * DAY_S)
        found = samples.list_samples(session, worker.id, since=0, hours=720)
        assert [sample.ts - start for sample in found] == [DAY_S + 2000, 31 * DAY_S]


def test_a_long_look_back_is_thinned_and_ends_with_the_newest(database: Database) -> None:
    now = time.time()
    with database.write() as session:
        worker = add_worker(session)
        rows = [WorkerSample(worker_id=worker.id, ts=now - n, keep_until=now + DAY_S, **HOST) for n in range(1500)]
        session.add_all(rows)
    with database.read() as session:
        found = samples.list_samples(session, worker.id, since=now - 3600, hours=1)
        assert 500 <= len(found) <= samples.MAX_SAMPLES
        assert found[-1].ts == max(row.ts for row in rows)
        assert found == sorted(found, key=lambda sample: sample.ts)


def test_samples_by_rest_and_on_the_pages(api: TestClient, app: FastAPI) -> None:
    with app.state.db.write() as session:
        worker = add_worker(session, num_gpus=2)
        load = {"utilization_frac": 0.5, "used_bytes": 20 * 10**9, "temperature_c": 61, "power_w": 312.5}
        worker.devices = [worker.devices[0] | load, worker.devices[1]]
        run = add_run(session)
        claim_by(session, run.id, worker.id, host="here", gpus=[0])
        add_sample(session, worker, HOST)
    (sample,) = api.get(f"/api/v1/workers/{worker.id}/samples").json()["items"]
    assert sample["memory_bytes"] == 64 * 10**9
    assert sample["devices"][0] == {"index": 0, "num_processes": None} | load
    assert sample["devices"][1]["utilization_frac"] is None
    assert api.get("/api/v1/workers/nobody/samples").status_code == 404
    assert api.get(f"/api/v1/workers/{worker.id}/samples?hours=0").status_code == 422
    page = api.get(f"/workers/{worker.id}").text
    for words in ("25.0% busy", "12.0 GB of 64.0 GB", "61 °C", "312 W", "GPU temperature", "Free disk"):
        assert words in page
    assert api.get("/workers/nobody").status_code == 404
    shown = api.get(f"/runs/{run.id}/system").text
    assert "50.0% busy" in shown
    assert "GPU 1" not in shown


def test_a_worker_without_gpus_or_samples_has_a_page(api: TestClient, app: FastAPI) -> None:
    with app.state.db.write() as session:
        worker = add_worker(session)
    assert "has not measured anything yet" in api.get(f"/workers/{worker.id}").text
    with app.state.db.write() as session:
        add_sample(session, session.get_one(Worker, worker.id), HOST)
    page = api.get(f"/workers/{worker.id}?hours=24").text
    assert "CPU busy" in page
    assert "GPU" not in page


def test_the_feed_gives_every_sample_once(database: Database) -> None:
    now = time.time()
    with database.write() as session:
        worker = add_worker(session)
        beat(session, worker, start=now - 60, seconds=30)
    feed = WorkerFeed(database, worker.id, 0.0)
    changes = feed.poll()
    assert [change.name for change in changes] == ["sample"] * 3
    assert changes[0].data["cpu_frac"] == pytest.approx(0.25)
    assert feed.poll() == []
    with database.write() as session:
        add_sample(session, worker, HOST, now=now)
    assert len(feed.poll()) == 1
    assert len(WorkerFeed(database, worker.id, float(changes[1].cursor)).poll()) == 2
