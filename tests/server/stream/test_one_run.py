"""What a stream says of one run: nothing lost, nothing twice, whatever breaks."""

import threading
import time

import httpx2 as httpx
import pytest
from fastapi import FastAPI

from event_stream import append, follow, steps, until
from rows import add_attempt, add_checkpoint, add_point, add_timing
from server.db import runs as db_runs
from server.db.series import seal_chunk
from server.db.tables import Run, RunState
from server.services import looks, metrics
from server.settings import Settings


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
