"""The event stream over a real port: nothing lost, nothing twice, whatever breaks."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx2 as httpx
import pytest
from fastapi import FastAPI
from sqlmodel import select

from clients import listening, new_token
from event_stream import StreamEvent, parse
from rows import add_attempt, add_checkpoint, add_point, add_run, add_timing
from server import stream
from server.app import create_app
from server.auth import issue_login_code
from server.db import runs as db_runs
from server.db.series import seal_chunk
from server.db.tables import Attempt, BrowserSession, Run, RunState
from server.queue import publish_hint
from server.services import feeds, looks, metrics, sessions
from server.services.metrics_feed import overlay_cursor
from server.settings import Settings


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


def append(app: FastAPI, run: Run, *seqs: int) -> None:
    """As ingest does: points and position in one transaction."""
    with app.state.db.write() as session:
        session.exec(select(Attempt).where(Attempt.run_id == run.id)).one().event_seq = seqs[-1]
        for seq in seqs:
            add_point(session, run, seq, float(seq))


@contextmanager
def follow(
    client: httpx.Client, topics: str, after: str = "", last: str | None = None
) -> Iterator[Iterator[StreamEvent]]:
    params = {"topics": topics} | ({"after": after} if after else {})
    headers = {"Last-Event-ID": last} if last is not None else {}
    with client.stream("GET", "/events", params=params, headers=headers) as answer:
        assert answer.status_code == 200, answer.read()
        assert answer.headers["content-type"].startswith("text/event-stream")
        yield parse(answer.iter_lines())


def until(events: Iterator[StreamEvent], name: str) -> StreamEvent:
    return next(event for event in events if event.name == name)


def steps(event: StreamEvent) -> list[int]:
    return [point[1] for point in event.data["points"]]


def test_a_stream_goes_on_behind_what_the_page_has_read(client: httpx.Client, app: FastAPI, run: Run) -> None:
    with app.state.db.read() as session:
        cursor = metrics.cursor(session, run.id)
    append(app, run, 4, 5)
    with follow(client, f"run:{run.id}", after=cursor) as events:
        first = until(events, "metrics")
        assert steps(first) == [4, 5]
        assert first.data["points"][0] == ["fvu/layers.5", 4, 4.0, 4.0]
        append(app, run, 6)
        assert steps(until(events, "metrics")) == [6]


def test_reconnecting_loses_nothing_and_doubles_nothing(client: httpx.Client, app: FastAPI, run: Run) -> None:
    last_seq, done = 120, threading.Event()

    def write() -> None:
        for seq in range(4, last_seq + 1):
            append(app, run, seq)
            time.sleep(0.005)
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    seen: list[int] = []
    cursor, connections = "0.0", 0
    while not seen or seen[-1] < last_seq:
        connections += 1
        with follow(client, f"run:{run.id}", last=cursor) as events:
            event = until(events, "metrics")
            seen += steps(event)
            cursor = event.id
    writer.join()
    assert seen == list(range(1, last_seq + 1))
    assert connections > 2


def test_a_long_backlog_comes_in_pieces_that_do_not_cut_events(
    client: httpx.Client, app: FastAPI, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(looks, "MAX_ROWS", 7)
    append(app, run, *range(4, 40))
    with app.state.db.write() as session:
        for seq in range(1, 40):
            add_point(session, run, seq, 0.1, key="lr")
    seen: list[tuple[str, int]] = []
    with follow(client, f"run:{run.id}", after="0.0") as events:
        while len(seen) < 78:
            event = until(events, "metrics")
            assert len({point[0] for point in event.data["points"]}) == 2
            seen += [(point[0], point[1]) for point in event.data["points"]]
    assert sorted(seen) == sorted((key, seq) for key in ("fvu/layers.5", "lr") for seq in range(1, 40))


def test_a_cursor_that_cannot_be_leads_to_a_reload(client: httpx.Client, app: FastAPI, run: Run) -> None:
    for cursor in ("garbage", "-1.-1", "1.99", "9.1", "1.3.x", "1e9.1", "\u0661.1", "1" * 190):
        with follow(client, f"run:{run.id}", after=cursor) as events:
            assert next(events).name == "resync", cursor
    with follow(client, f"run:{run.id}", after="garbage") as events:
        next(events)
        append(app, run, 4)
        assert steps(until(events, "metrics")) == [4]


def test_points_that_were_sealed_meanwhile_are_replayed_among_the_others(
    client: httpx.Client, app: FastAPI, run: Run
) -> None:
    append(app, run, *range(4, 20))
    with app.state.db.write() as session:
        for seq in range(1, 20):
            add_point(session, run, seq, 0.1, key="lr")
        seal_chunk(session, run.id, "fvu/layers.5", 1)
    with follow(client, f"run:{run.id}", after="1.7") as events:
        points = until(events, "metrics").data["points"]
    assert [step for _, step, *_ in points] == [step for step in range(8, 20) for _ in range(2)]
    assert sorted(point[0] for point in points) == ["fvu/layers.5"] * 12 + ["lr"] * 12


def test_a_long_sealed_backlog_is_loaded_anew_instead(
    client: httpx.Client, app: FastAPI, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(looks, "MAX_ROWS", 7)
    append(app, run, *range(4, 20))
    with app.state.db.write() as session:
        seal_chunk(session, run.id, "fvu/layers.5", 1)
    with follow(client, f"run:{run.id}", after="1.3") as events:
        assert next(events).name == "resync"
        append(app, run, 20)
        assert steps(until(events, "metrics")) == [20]


def test_a_log_position_ahead_of_the_run_starts_the_log_anew(client: httpx.Client, run: Run) -> None:
    with follow(client, f"run:{run.id}", after="1.2.9.0") as events:
        assert next(events).name == "metrics"


def test_a_huge_last_event_id_is_no_defect(client: httpx.Client, run: Run) -> None:
    with follow(client, f"run:{run.id}", last="x" * 20_000) as events:
        assert next(events).name == "resync"


def test_a_new_attempt_makes_the_page_reload(client: httpx.Client, app: FastAPI, run: Run) -> None:
    with follow(client, f"run:{run.id}", after="1.3") as events:
        until(events, "run")
        with app.state.db.write() as session:
            add_attempt(session, session.get_one(Run, run.id), attempt=2, event_seq=1)
        assert until(events, "resync").id.startswith("2.1")


def test_the_log_follows_by_offset(client: httpx.Client, app: FastAPI, settings: Settings, run: Run) -> None:
    path = settings.run_dir(run.id).log(1)
    path.parent.mkdir(parents=True)
    path.write_text("old\n")
    with follow(client, f"run:{run.id}", after="1.3") as events:
        marker = until(events, "log")
        assert (marker.data["attempt"], marker.data["next_offset"], marker.data["text"]) == (1, 4, "")
        with path.open("a") as file:
            file.write("new <b>\npart")
        grown = until(events, "log")
        assert (grown.data["offset"], grown.data["text"]) == (4, "new <b>\n")
    with path.open("a") as file:
        file.write("ial\n")
    with follow(client, f"run:{run.id}", last=grown.id) as events:
        assert until(events, "log").data["text"] == "partial\n"


def test_state_checkpoints_and_timings_are_hinted_at(
    client: httpx.Client, app: FastAPI, settings: Settings, run: Run
) -> None:
    with follow(client, f"run:{run.id}", after="1.3") as events:
        assert until(events, "run").data["state"] == "running"
        with app.state.db.write() as session:
            add_checkpoint(session, settings, session.get_one(Run, run.id))
        assert until(events, "run").data["num_checkpoints"] == 1
        with app.state.db.write() as session:
            add_timing(session, session.get_one(Run, run.id), 6, {"other": 1.0})
        assert until(events, "run").data["last_timed_at"] == 6.0
        with app.state.db.write() as session:
            db_runs.release(session, run.id, 1, RunState.COMPLETED, actor="supervisor", outcome="completed")
        assert until(events, "run").data["state"] == "completed"


def test_the_list_tells_which_runs_changed(client: httpx.Client, app: FastAPI, run: Run) -> None:
    with app.state.db.read() as session:
        cursor = feeds.list_cursor(session)
    with follow(client, "runs", after=cursor) as events:
        time.sleep(0.4)
        with app.state.db.write() as session:
            session.get_one(Run, run.id).step = 7
        changed = until(events, "run")
        assert (changed.data["run_id"], changed.data["step"]) == (run.id, 7)
        with app.state.db.write() as session:
            new = add_run(session)
        assert until(events, "run").data["run_id"] == new.id
        assert until(events, "runs").data == {}
    with follow(client, "runs", last=changed.id) as events:
        assert next(events).name == "resync"


def test_one_stream_may_follow_a_run_and_the_list(client: httpx.Client, app: FastAPI, run: Run) -> None:
    with follow(client, f"runs,run:{run.id}", after="1.3") as events:
        until(events, "run")
        append(app, run, 4)
        assert steps(until(events, "metrics")) == [4]
        with app.state.db.write() as session:
            add_run(session)
        assert until(events, "runs").id == ""


def test_one_stream_follows_the_metrics_of_several_runs(client: httpx.Client, app: FastAPI, run: Run) -> None:
    """Its cursor is theirs: what comes while it is broken comes once, whichever run it is of."""
    with app.state.db.write() as session:
        other = add_run(session, state=RunState.RUNNING)
        add_attempt(session, other, event_seq=1)
        add_point(session, other, 1, 1.0)
    with app.state.db.read() as session:
        cursor = overlay_cursor(session, [other.id, run.id])
    assert cursor == "1.1,1.3"
    topics = f"metrics:{other.id},metrics:{run.id}"
    with follow(client, topics, after=cursor) as events:
        assert {until(events, "run").data["run_id"] for _ in range(2)} == {run.id, other.id}
        append(app, run, 4)
        first = until(events, "metrics")
        assert (first.data["run_id"], steps(first), first.id) == (run.id, [4], "1.1,1.4")
    append(app, other, 2, 3)
    append(app, run, 5)
    with follow(client, topics, last=first.id) as events:
        found = [until(events, "metrics") for _ in range(2)]
        assert [(one.data["run_id"], steps(one)) for one in found] == [(other.id, [2, 3]), (run.id, [5])]
        with app.state.db.write() as session:
            add_attempt(session, session.get_one(Run, other.id), attempt=2, event_seq=1)
        assert until(events, "resync").data["run_id"] == other.id
    with follow(client, topics, after="1.1") as events:  # of one run: both are loaded anew
        assert {until(events, "resync").data["run_id"] for _ in range(2)} == {run.id, other.id}


def test_unknown_topics_are_refused(client: httpx.Client, run: Run) -> None:
    many = ",".join(f"metrics:{number}" for number in range(51))
    unknown = ("", "nothing", "run:", "run:x", "runs,runs", "run:a,run:b", "runs,", "x" * 300, "x" * 3000)
    mixed = ("metrics:x", f"metrics:{run.id},metrics:{run.id}", f"runs,metrics:{run.id}", many)
    for topics in (*unknown, *mixed):
        answer = client.get("/events", params={"topics": topics})
        assert answer.status_code in (404, 422), topics
        assert answer.headers["content-type"] == "application/problem+json"


def test_streams_of_one_login_are_counted(client: httpx.Client, app: FastAPI, run: Run) -> None:
    open_streams = [client.stream("GET", "/events", params={"topics": "runs"}) for _ in range(stream.MAX_STREAMS)]
    for one in open_streams:
        assert one.__enter__().status_code == 200
    refused = client.get("/events", params={"topics": "runs"})
    assert refused.status_code == 429
    assert int(refused.headers["retry-after"]) > 0
    assert client.get("/api/v1/runs").status_code == 200
    for one in open_streams:
        one.__exit__(None, None, None)
    deadline = time.monotonic() + 10
    while sum(app.state.open_streams.values()) and time.monotonic() < deadline:
        time.sleep(0.05)
    with follow(client, f"run:{run.id}") as events:
        assert until(events, "metrics")


def test_logging_out_ends_the_stream(app: FastAPI, url: str, run: Run) -> None:
    with app.state.db.write() as session:
        code = issue_login_code(session)
    with httpx.Client(base_url=url, timeout=10) as browser:
        assert browser.post("/login", data={"code": code}).status_code == 303
        with follow(browser, f"run:{run.id}") as events:
            until(events, "run")
            with app.state.db.write() as session:
                sessions.end(session, session.exec(select(BrowserSession.id)).one())
            assert list(events) is not None
        assert browser.get("/events", params={"topics": "runs"}).status_code == 401


def test_a_hint_wakes_the_stream_long_before_it_would_look(
    sqlite_settings: Settings, broker_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("POLL_ACTIVE_S", "POLL_IDLE_S", "POLL_HINTED_S"):
        monkeypatch.setattr(stream, name, 60)
    app = create_app(sqlite_settings.model_copy(update={"redis_url": broker_url}))
    with listening(app) as url:
        with app.state.db.write() as session:
            run = add_run(session, state=RunState.RUNNING)
            add_attempt(session, run, event_seq=1)
        headers = {"Authorization": f"Bearer {new_token(app)}"}
        with (
            httpx.Client(base_url=url, headers=headers, timeout=10) as client,
            follow(client, f"run:{run.id}") as events,
        ):
            until(events, "run")
            while not app.state.hints.is_connected:
                time.sleep(0.01)
            append(app, run, 2)
            assert publish_hint(broker_url, run.id)
            started = time.monotonic()
            assert steps(until(events, "metrics")) == [2]
            assert time.monotonic() - started < 5
