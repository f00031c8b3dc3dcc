"""What a stream can follow besides one run: the list, several runs, and these together."""

import time
from itertools import permutations

import httpx2 as httpx
from fastapi import FastAPI
from sqlmodel import func, select

from event_stream import append, follow, steps, until
from rows import add_attempt, add_point, add_run, add_worker
from server.db.runs import record
from server.db.tables import Run, RunEvent, RunState
from server.services import feeds
from server.services.metrics_feed import overlay_cursor


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


def tell(app: FastAPI, run: Run, kind: str, *, ts: float | None = None) -> int:
    with app.state.db.write() as session:
        record(session, run.id, actor="test", kind=kind, detail=f"why {kind}", ts=ts)
        return session.exec(select(func.max(RunEvent.id))).one() or 0


def test_notices_come_once_wherever_the_stream_breaks(client: httpx.Client, app: FastAPI, run: Run) -> None:
    begin = tell(app, run, "failed")
    with follow(client, "notices") as events:
        assert next(events).data == {"id": begin}  # what was before it is not told of
        tell(app, run, "moved")
        told = tell(app, run, "watch")
        notice = until(events, "notice")
    title, text = f"{run.name} met a watch rule", "why watch"
    assert notice.data == {"id": told, "kind": "watch", "run_id": run.id, "title": title, "text": text}
    missed = [tell(app, run, kind) for kind in ("retry_wait", "health")]
    tell(app, run, "warning", ts=time.time() - 10_000)  # nobody is told of what is long past
    for topics in (f"run:{run.id},notices:{told}", f"notices:{told},runs"):
        with follow(client, topics) as events:
            assert [until(events, "notice").data["id"] for _ in range(3)] == [told, *missed]
    with follow(client, "notices:99999999") as events:  # of another database
        until(events, "notice")
        told = tell(app, run, "completed")
        assert until(events, "notice").data["id"] == told


def test_of_very_many_events_the_newest_are_told(client: httpx.Client, app: FastAPI, run: Run) -> None:
    begin = tell(app, run, "moved")
    with app.state.db.write() as session:
        for _ in range(50):
            record(session, run.id, actor="test", kind="cancelled")
    with follow(client, f"notices:{begin}") as events:
        ids = [until(events, "notice").data["id"] for _ in range(21)]
    assert ids == [begin, *range(begin + 31, begin + 51)]


def test_topics_come_in_any_order(client: httpx.Client, app: FastAPI, run: Run) -> None:
    with app.state.db.write() as session:
        worker = add_worker(session)
    for main in (f"run:{run.id}", f"worker:{worker.id}", f"metrics:{run.id}"):
        for topics in permutations([main, "runs", "notices"]):
            with follow(client, ",".join(topics)) as events:
                assert until(events, "notice").data.keys() == {"id"}


def test_unknown_topics_are_refused(client: httpx.Client, run: Run) -> None:
    many = ",".join(f"metrics:{number}" for number in range(51))
    unknown = ("", "nothing", "run:", "run:x", "runs,runs", "run:a,run:b", "runs,", "x" * 300, "x" * 3000)
    mixed = (
        "metrics:x",
        f"metrics:{run.id},metrics:{run.id}",
        f"run:{run.id},metrics:{run.id}",
        "notices,notices",
        many,
    )
    for topics in (*unknown, *mixed):
        answer = client.get("/events", params={"topics": topics})
        assert answer.status_code in (404, 422), topics
        assert answer.headers["content-type"] == "application/problem+json"
