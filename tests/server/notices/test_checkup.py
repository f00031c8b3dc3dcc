"""What is bad about a run that trains is told of once."""

import pytest
from sqlmodel import select

from rows import add_attempt, add_point, add_run
from server.db.session import Database
from server.db.tables import RunEvent, RunState
from server.notices.checkup import Checkup
from server.services.diagnosis import Diagnoses


@pytest.mark.parametrize(("state", "fvu", "told"), [("running", 1.2, 1), ("running", 0.1, 0), ("completed", 1.2, 0)])
def test_a_bad_finding_is_told_of_once(database: Database, state: str, fvu: float, told: int) -> None:
    with database.write() as session:
        run = add_run(session, state=RunState(state), step=300, total_steps=1000)
        add_attempt(session, run, event_seq=300)
        for step in range(1, 301):
            add_point(session, run, step, fvu)
        run.latest = {"fvu/layers.5": fvu}
    checkups = [Checkup(database, Diagnoses()) for _ in range(2)]  # of two servers
    assert [one.work() for one in (*checkups, checkups[0])] == [told, 0, 0]
    with database.read() as session:
        events = session.exec(select(RunEvent).where(RunEvent.kind == "health")).all()
    assert [(one.run_id, one.reason_code) for one in events] == [(run.id, "fvu_stuck")] * told
    assert all("stuck at 1.200" in one.detail for one in events)
