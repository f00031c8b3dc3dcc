"""A cancel at the very moment at which a run ends: one of the two wins, and everybody is told the truth."""

import itertools
import time
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
from fastapi.testclient import TestClient

from clients import serve
from promises import one_way
from rows import add_checkpoint, add_run, claim_by
from server.app import create_app
from server.db.session import Database
from server.db.tables import Run, RunState
from server.settings import Settings
from sparsify_core import events
from worker.ending import conclude

pytestmark = pytest.mark.faults


@pytest.mark.parametrize("races", [20, pytest.param(500, marks=pytest.mark.long)])
def test_a_cancel_that_races_the_end_is_answered_truthfully(settings: Settings, races: int) -> None:
    app = create_app(settings)
    with serve(app) as client, ThreadPoolExecutor(2) as pool:
        ends = [race(client, app.state.db, settings, pool) for _ in range(races)]
    assert set(ends) <= {
        (RunState.STOPPING, RunState.COMPLETED),  # told that it would be stopped, but it was complete already
        (RunState.COMPLETED, RunState.COMPLETED),
        (RunState.STOPPING, RunState.CANCELLED),
    }
    assert len(set(ends)) > 1 or races < 100, "the two never met"


def race(client: TestClient, database: Database, settings: Settings, pool: ThreadPoolExecutor) -> tuple[str, str]:
    """Returns what the cancel was answered with, and what the run became."""
    with database.write() as session:
        run = add_run(session)
        slot = next(_SLOTS)
        fence = claim_by(session, run.id, slot=slot)
        assert fence is not None
        add_checkpoint(session, settings, run)
    writer = events.EventWriter(settings.run_dir(run.id).events(fence), attempt=fence)
    writer.write(events.AttemptFinished(outcome="completed"))
    writer.close()
    barrier = Barrier(2)

    def cancel() -> str:
        barrier.wait()
        time.sleep(slot % _STAGGERED_MS / 1000)  # a head start for the other side, more of it from race to race
        answer = client.post(f"/api/v1/runs/{run.id}/cancel")
        assert answer.status_code == 200, answer.text
        return str(answer.json()["state"])

    def end() -> RunState | None:
        barrier.wait()
        return conclude(database, settings, run.id, fence, actor="supervisor", returncode=0)

    told, ended = pool.submit(cancel), pool.submit(end)
    with database.read() as session:
        told_state, ended_state = told.result(), ended.result()
        state = session.get_one(Run, run.id).state
        one_way(session, run.id)
    assert state == ended_state
    return told_state, state


_SLOTS = itertools.count()
_STAGGERED_MS = 50
