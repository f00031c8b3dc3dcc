"""When runs come up again, on both databases."""

import time

import pytest
from sqlmodel import select

from rows import add_run, claim_by
from server.db import runs
from server.db.runs.moves import backoff_s
from server.db.session import Database
from server.db.tables import QueueState, Run, RunEvent, RunState


def test_the_backoff_doubles_up_to_ten_minutes() -> None:
    assert [backoff_s(tries) for tries in (1, 2, 3, 6, 7, 60)] == [10, 20, 40, 320, 600, 600]


def test_a_run_is_queued_again_when_its_backoff_is_over(database: Database) -> None:
    with database.write() as session:
        run = add_run(session)
        fence = claim_by(session, run.id)
        assert fence == 1
        before = time.time()
        assert runs.release(session, run.id, fence, RunState.RETRY_WAIT, actor="reaper", outcome="lost", losses=2)
        session.refresh(run)
        assert run.not_before is not None
        assert before + 0.8 * 20 <= run.not_before <= time.time() + 20
        assert runs.next_queued(session) == []
        assert runs.queue_due(session, now=run.not_before - 1) == []
        assert runs.queue_due(session, now=run.not_before) == [run.id]
        assert runs.queue_due(session, now=run.not_before) == []
        session.refresh(run)
        assert (run.state, run.not_before, run.losses, run.attempt) == (RunState.QUEUED, None, 2, 1)


def test_what_gives_its_devices_back_keeps_its_place_and_what_is_requeued_goes_behind(database: Database) -> None:
    with database.write() as session:
        first, second = add_run(session, name="first"), add_run(session, name="second")
        for request, names in ((runs.drain, ["first", "second"]), (None, ["second", "first"])):
            fence = claim_by(session, first.id)
            assert fence is not None
            if request is None:
                assert runs.requeue(session, first.id, actor="user") == RunState.STOPPING
            else:
                assert request(session, first.id, fence)
            assert runs.release(session, first.id, fence, RunState.QUEUED, actor="supervisor", outcome="interrupted")
            assert [run.name for run in runs.next_queued(session)] == names
        assert second.attempt == 0


@pytest.mark.parametrize("takes_away", [False, True])
def test_attempts_are_counted_without_gaps_and_the_reaper_fences_out(database: Database, takes_away: bool) -> None:
    with database.write() as session:
        run = add_run(session)
        for attempt in (1, 2, 3):
            assert claim_by(session, run.id) == attempt
            assert runs.release(
                session, run.id, attempt, RunState.QUEUED, actor="reaper", outcome="lost", takes_away=takes_away
            )
            session.refresh(run)
            assert (run.attempt, run.fence) == (attempt, attempt + 1 if takes_away else attempt)


def test_the_history_says_from_where_and_why(database: Database) -> None:
    with database.write() as session:
        run_id = add_run(session).id
        claim_by(session, run_id)
        runs.release(
            session, run_id, 1, RunState.RETRY_WAIT, actor="reaper", outcome="lost", reason_code="worker_lost", losses=1
        )
        last = session.exec(select(RunEvent).where(RunEvent.kind == RunState.RETRY_WAIT)).one()
        assert (last.actor, last.from_state, last.reason_code) == ("reaper", "starting", "worker_lost")


def test_the_queue_is_paused_once_with_its_first_reason(database: Database) -> None:
    with database.write() as session:
        assert runs.set_queue_paused(session, paused=True, reason="three runs died early")
        assert not runs.set_queue_paused(session, paused=True, reason="another")
        assert session.exec(select(QueueState)).one().reason == "three runs died early"
        assert runs.set_queue_paused(session, paused=False)
    with database.read() as session:
        assert session.exec(select(Run)).all() == []
        assert not session.exec(select(QueueState)).one().paused
