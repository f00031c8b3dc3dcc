"""Wake-ups and hints go out after the commit, and a broker that is away harms nobody."""

import time
from typing import Any

import pytest
import redis

from clients import serve
from rows import add_run
from server import queue
from server.app import create_app
from server.settings import Settings
from services import wait_until


@pytest.fixture
def client(broker_url: str) -> redis.Redis:
    client: redis.Redis = redis.Redis.from_url(queue.redis_client_url(broker_url))
    client.flushall()
    return client


def test_queueing_a_run_wakes_the_workers_once(
    sqlite_settings: Settings, broker_url: str, client: redis.Redis, valid: dict[str, Any]
) -> None:
    app = create_app(sqlite_settings.model_copy(update={"redis_url": broker_url}))
    with serve(app) as api, client.pubsub() as channel:
        channel.subscribe(queue.HINT_CHANNEL)
        run_id = api.post("/api/v1/runs", json=valid).json()["id"]
        wait_until(lambda: client.llen(queue.QUEUE) == 1, timeout_s=20, what="the wake-up")
        hint = wait_until(lambda: _message(channel), timeout_s=5, what="the hint")
        assert hint == run_id.encode()
        api.post(f"/api/v1/runs/{run_id}/cancel")
        assert wait_until(lambda: _message(channel), timeout_s=5, what="the hint") == run_id.encode()
        assert client.llen(queue.QUEUE) == 1


def test_a_refused_run_wakes_nobody(
    sqlite_settings: Settings, broker_url: str, client: redis.Redis, valid: dict[str, Any]
) -> None:
    app = create_app(sqlite_settings.model_copy(update={"redis_url": broker_url}))
    valid["config"]["dataset"] = "/etc/passwd"
    with serve(app) as api:
        assert api.post("/api/v1/runs", json=valid).status_code == 422
        time.sleep(0.5)
    assert client.llen(queue.QUEUE) == 0


def test_a_broker_that_is_away_delays_nothing(sqlite_settings: Settings, valid: dict[str, Any]) -> None:
    url = "redis+socket:///nowhere/s.sock"
    app = create_app(sqlite_settings.model_copy(update={"redis_url": url}))
    with serve(app) as api:
        started = time.monotonic()
        assert api.post("/api/v1/runs", json=valid).status_code == 201
        assert time.monotonic() - started < 2
        assert not queue.publish_hint(url, "x")
        assert not queue.wake_workers(url)
        with app.state.db.write() as session:
            add_run(session)
        assert len(api.get("/api/v1/runs").json()["items"]) == 2


def _message(channel: Any) -> bytes | None:
    message = channel.get_message(ignore_subscribe_messages=True, timeout=0.05)
    return message["data"] if message else None
