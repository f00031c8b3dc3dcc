"""The state machine of a run, on both databases and under races."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
from sqlalchemy import update
from sqlmodel import select

from rows import add_run, claim_by
from server.db import runs
from server.db.runs.moves import MOVES
from server.db.session import Database, after_commit
from server.db.tables import ACTIVE, TERMINAL, Attempt, Intent, Run, RunEvent, RunState


def new_run(database: Database, state: RunState = RunState.QUEUED) -> str:
    with database.write() as session:
        return add_run(session, state=state).id


def state_of(database: Database, run_id: str) -> str:
    with database.read() as session:
        return session.get_one(Run, run_id).state


def test_of_two_claimers_one_wins(database: Database) -> None:
    run_ids = [new_run(database) for _ in range(8)]
    barrier = Barrier(4)

    def claim_all(worker: int) -> list[int | None]:
        barrier.wait()
        got = []
        for slot, run_id in enumerate(run_ids):
            with database.write() as session:
                got.append(claim_by(session, run_id, f"w{worker}", slot=slot))
        return got

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(claim_all, range(4)))
    for per_run in zip(*results, strict=True):
        assert sorted(per_run, key=lambda fence: fence is None) == [1, None, None, None]
    with database.read() as session:
        assert len(session.exec(select(Attempt)).all()) == 8


def test_cancelling_and_claiming_at_once_leaves_one_owner(database: Database) -> None:
    for _ in range(6):
        run_id = new_run(database)
        barrier = Barrier(2)

        def claim(run_id: str = run_id, barrier: Barrier = barrier) -> int | None:
            barrier.wait()
            with database.write() as session:
                return claim_by(session, run_id, "w")

        def cancel(run_id: str = run_id, barrier: Barrier = barrier) -> RunState | None:
            barrier.wait()
            with database.write() as session:
                return runs.request_cancel(session, run_id, actor="user")

        with ThreadPoolExecutor(2) as pool:
            claimed, cancelled = pool.submit(claim), pool.submit(cancel)
            fence, state = claimed.result(), cancelled.result()
        assert state == (RunState.CANCELLED if fence is None else RunState.STOPPING)
        assert state_of(database, run_id) == state


def test_a_stop_that_meets_a_return_to_the_queue_still_stops(database: Database) -> None:
    run_id = new_run(database)
    with database.write() as session:
        fence = claim_by(session, run_id, "w")
        assert fence is not None
    with database.write() as session:
        session.get_one(Run, run_id)  # what request_cancel has read when the drain commits
        session.execute(update(Run).values(state=RunState.QUEUED), execution_options={"synchronize_session": False})
        assert runs.request_cancel(session, run_id, actor="user") == RunState.CANCELLED


def test_the_history_takes_what_a_database_refuses(database: Database) -> None:
    run_id = new_run(database)
    with database.write() as session:
        runs.record(session, run_id, actor="token " + "x" * 100, kind="warning", detail="a\x00b\udcff")
    with database.read() as session:
        assert session.exec(select(RunEvent.detail).where(RunEvent.kind == "warning")).one() == "ab?"


def test_a_run_that_was_cancelled_is_not_claimed(database: Database) -> None:
    run_id = new_run(database)
    with database.write() as session:
        assert runs.request_cancel(session, run_id, actor="user") == RunState.CANCELLED
    with database.write() as session:
        assert claim_by(session, run_id, "w") is None
        assert runs.next_queued(session) == []


@pytest.mark.parametrize("intent", list(Intent))
@pytest.mark.parametrize("source", list(RunState))
def test_a_move_happens_where_the_table_allows_it_and_nowhere_else(
    database: Database, source: RunState, intent: Intent
) -> None:
    with database.write() as session:
        for move in MOVES:
            run = add_run(session, state=source, intent=intent, fence=1, attempt=1)
            moved = runs.make_move(session, run.id, move, actor="test", fence=1)
            session.refresh(run)
            allowed = source in move.sources and intent in move.intents
            assert moved == allowed
            assert run.state == (move.to if moved else source)
            assert run.intent == ((move.sets_intent or intent) if moved else intent)
            if move.is_fenced:
                other = add_run(session, state=source, intent=intent, fence=2, attempt=2)
                assert not runs.make_move(session, other.id, move, actor="test", fence=1)
    assert not (source in TERMINAL and runs.LEGAL_MOVES[source])


def test_a_holder_that_was_fenced_out_changes_nothing(database: Database) -> None:
    run_id = new_run(database)
    with database.write() as session:
        first = claim_by(session, run_id, "a")
        assert first == 1
        assert runs.release(session, run_id, 1, RunState.QUEUED, actor="reaper", outcome="lost")
        assert claim_by(session, run_id, "b") == 2
    with database.write() as session:
        assert runs.heartbeat(session, run_id, 1) is None
        assert runs.orders(session, run_id, 1) is None
        assert not runs.note_first_step(session, run_id, 1)
        assert not runs.release(session, run_id, 1, RunState.FAILED, actor="supervisor", outcome="failed")
        assert runs.heartbeat(session, run_id, 2) == (RunState.STARTING, Intent.RUN)
    assert state_of(database, run_id) == RunState.STARTING


def test_every_move_leaves_a_line_of_history(database: Database) -> None:
    run_id = new_run(database)
    with database.write() as session:
        claim_by(session, run_id, "w")
        runs.note_first_step(session, run_id, 1)
        runs.request_cancel(session, run_id, actor="user")
        runs.release(session, run_id, 1, RunState.CANCELLED, actor="supervisor", outcome="stopped")
    with database.read() as session:
        kinds = session.exec(select(RunEvent.kind).where(RunEvent.run_id == run_id).order_by(RunEvent.id)).all()
        run = session.get_one(Run, run_id)
    assert list(kinds) == ["queued", "starting", "running", "stopping", "cancelled"]
    assert run.finished_at is not None
    assert run.state not in ACTIVE


def test_what_follows_a_commit_does_not_follow_a_rollback(database: Database) -> None:
    done: list[str] = []
    with database.write() as session:
        after_commit(session, lambda: done.append("committed"))
        add_run(session)
        assert done == []
    assert done == ["committed"]

    def fail() -> None:
        with database.write() as session:
            after_commit(session, lambda: done.append("rolled back"))
            add_run(session)
            raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011
        fail()
    assert done == ["committed"]
