"""Readiness, metrics and banners say how the parts are doing, and nothing more than that."""

import re
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families

from clients import browse, serve, visit
from rows import add_attempt, add_run
from server import hints
from server.app import create_app
from server.db.runs import set_queue_paused
from server.db.tables import RunState, Worker
from server.services import health
from server.settings import Settings
from services import Broker, wait_until

HOST = "secret-host"
SAME_ORIGIN = {"Sec-Fetch-Site": "same-origin"}


def add_worker(app: FastAPI, *, tick_age_s: float = 1.0, consumer_age_s: float | None = 2.0) -> None:
    seen = time.time() - tick_age_s
    consumed = None if consumer_age_s is None else seen - consumer_age_s
    with app.state.db.write() as session:
        session.add(Worker(name=HOST, host=HOST, pid=1, started_at=seen - 1000, seen_at=seen, consumed_at=consumed))


@pytest.fixture
def own_broker() -> Iterator[Broker]:
    """One that the test may stop."""
    with Broker() as running:
        yield running


@pytest.fixture
def app(sqlite_settings: Settings, own_broker: Broker) -> FastAPI:
    return create_app(sqlite_settings.model_copy(update={"redis_url": own_broker.url}))


def test_readiness_tells_a_stranger_ages_and_nothing_else(app: FastAPI) -> None:
    with visit(app) as stranger:
        assert stranger.get("/readyz").json() == {
            "status": "degraded",
            "reasons": ["no_worker"],
            "broker_age_s": pytest.approx(0, abs=5),
            "tick_age_s": None,
            "consumer_age_s": None,
        }
        add_worker(app)
        answer = stranger.get("/readyz")
        assert answer.json() == {
            "status": "ready",
            "reasons": [],
            "broker_age_s": pytest.approx(0, abs=8),
            "tick_age_s": pytest.approx(1, abs=5),
            "consumer_age_s": pytest.approx(2, abs=0.1),
        }
        assert HOST not in answer.text


@pytest.mark.parametrize(
    ("ages", "reasons"),
    [
        ({"consumer_age_s": health.DEAF_S + 1}, ["consumer_silent"]),
        ({"consumer_age_s": None}, ["consumer_silent"]),  # it has ticked for long and was never heard
        ({"tick_age_s": 1000.0}, ["no_worker"]),
        ({"tick_age_s": 1000.0, "consumer_age_s": 1000.0}, ["no_worker"]),
    ],
)
def test_a_worker_that_takes_no_messages_is_told_from_one_that_is_gone(
    app: FastAPI, ages: dict[str, float | None], reasons: list[str]
) -> None:
    with browse(app) as browser:
        add_worker(app, **ages)
        assert browser.get("/readyz").json()["reasons"] == reasons
        page = browser.get("/runs").text
        assert ("takes no message" in page or "has taken no message" in page) is (reasons == ["consumer_silent"])


def test_a_broker_that_is_away_or_hangs_is_a_banner_on_every_page_until_it_answers(
    app: FastAPI, own_broker: Broker, monkeypatch: pytest.MonkeyPatch, valid: dict[str, Any]
) -> None:
    for name, seconds in (("_PING_S", 0.1), ("_SILENT_S", 0.5), ("_RETRY_S", 0.2)):
        monkeypatch.setattr(hints, name, seconds)
    with browse(app) as browser:
        add_worker(app)

        def reasons() -> list[str]:
            return browser.get("/readyz").json()["reasons"]

        wait_until(lambda: reasons() == [], timeout_s=20, what="the broker to be heard")
        assert "degraded" not in browser.get("/runs").text
        for away, back in (
            (own_broker.stop, own_broker.start),
            (lambda: send(own_broker, signal.SIGSTOP), lambda: send(own_broker, signal.SIGCONT)),
        ):
            away()
            wait_until(lambda: reasons() == ["broker_down"], timeout_s=20, what="the broker to be missed")
            for page in ("/runs", "/runs/new", "/settings", "/banners"):
                assert "the broker does not answer" in browser.get(page).text
            back()
            wait_until(lambda: reasons() == [], timeout_s=20, what="the broker to be heard again")
            assert "degraded" not in browser.get("/banners").text


def send(broker: Broker, number: signal.Signals) -> None:
    assert broker.process is not None
    broker.process.send_signal(number)


def test_a_paused_queue_says_why_and_is_resumed_by_a_button_or_a_program(app: FastAPI) -> None:
    with browse(app) as browser, serve(app) as api:
        add_worker(app)
        for resume in (
            lambda: browser.post("/queue/resume", data={"csrf_token": csrf_token(browser)}, headers=SAME_ORIGIN),
            lambda: api.post("/api/v1/queue/resume"),
        ):
            with app.state.db.write() as session:
                assert set_queue_paused(session, paused=True, reason="3 runs died on <host>")
            assert browser.get("/readyz").json()["reasons"] == ["queue_paused"]
            assert api.get("/api/v1/queue").json()["reason"] == "3 runs died on <host>"
            page = browser.get("/runs").text
            assert "3 runs died on &lt;host&gt;. Find the cause, then resume it." in page
            assert resume().status_code in (200, 303)
            assert api.get("/api/v1/queue").json() == {
                "paused": False,
                "reason": "",
                "since": pytest.approx(time.time(), abs=60),
            }
            assert "queue is paused" not in browser.get("/runs").text
        assert api.post("/api/v1/queue/resume").status_code == 200
        paused = [api.post("/api/v1/queue/pause").json() for _ in range(2)]
        assert paused[0] == paused[1] == api.get("/api/v1/queue").json()
        assert paused[0]["paused"]


def csrf_token(browser: TestClient) -> str:
    found = re.search(r'name="csrf_token" value="([^"]+)"', browser.get("/runs").text)
    assert found
    return found[1]


def test_little_room_on_the_disk_is_a_banner(app: FastAPI, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setattr(health, "LOW_DISK_BYTES", shutil.disk_usage(tmp_path).total * 2)
    with browse(app) as browser:
        assert "disk_low" in browser.get("/readyz").json()["reasons"]
        assert "free on the disk of the data folder" in browser.get("/runs").text


def samples(answer: Any) -> dict[tuple[str, str], float]:
    """By name and label value."""
    return {
        (sample.name, ",".join(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def test_metrics_need_a_token_and_are_what_the_database_says(app: FastAPI) -> None:
    with visit(app) as stranger:
        assert stranger.get("/metrics").status_code == 401
    with serve(app) as api:
        add_worker(app)
        with app.state.db.write() as session:
            add_run(session, queued_at=time.time() - 100)
            add_run(session, queued_at=time.time() - 50)
            run = add_run(session, state=RunState.RUNNING, latest={"tokens_per_s": 1500.0, "fvu/a": "nan"})
            add_attempt(session, run).outcome = "lost"
        api.get("/api/v1/runs/none")
        answer = api.get("/metrics")
        assert re.match(r"text/plain; version=[\d.]+", answer.headers["content-type"])
        found = samples(answer)
    assert found["sparseboard_runs", "queued"] == 2
    assert found["sparseboard_runs", "running"] == 1
    assert found["sparseboard_runs", "failed"] == 0
    assert found["sparseboard_queue_wait_seconds", ""] == pytest.approx(100, abs=10)
    assert found["sparseboard_tokens_per_second", ""] == 1500
    assert found["sparseboard_attempts_ended_total", "lost"] == 1
    assert found["sparseboard_workers_alive", ""] == 1
    assert found["sparseboard_worker_consumer_age_seconds", HOST] == pytest.approx(2, abs=0.1)
    assert found["sparseboard_http_request_seconds_count", "GET,4xx"] >= 1
    assert found["sparseboard_disk_free_bytes", ""] > 0
    assert ("sparseboard_broker_age_seconds", "") in found


def test_every_metric_is_in_the_docs(app: FastAPI) -> None:
    with serve(app) as api:
        families = {family.name for family in text_string_to_metric_families(api.get("/metrics").text)}
    text = (Path(__file__).parents[2] / "docs/operations.md").read_text(encoding="utf-8")
    ours = {name for name in families if name.startswith("sparseboard_")}
    assert ours
    assert [name for name in sorted(ours) if f"`{name}" not in text] == []


def test_without_a_broker_nothing_is_said_of_it(sqlite_api: TestClient) -> None:
    answer = sqlite_api.get("/readyz").json()
    assert (answer["broker_age_s"], answer["reasons"]) == (None, ["no_worker"])
    assert ("sparseboard_broker_age_seconds", "") not in samples(sqlite_api.get("/metrics"))
