"""Which devices are whose, on both databases."""

import pytest
from sqlalchemy.exc import IntegrityError
from sqlmodel import select

from rows import add_run, claim_by
from server.db import runs
from server.db.runs import Placement
from server.db.session import Database
from server.db.tables import Attempt, AttemptNode, DeviceLease, LeaseState, Run, RunState
from server.db.workers import held_devices
from server.scheduling import DeviceKind


def leases(database: Database) -> list[tuple[str, str, int, int]]:
    with database.read() as session:
        rows = session.exec(select(DeviceLease).order_by(DeviceLease.worker_id, DeviceLease.index))
        return [(row.worker_id, row.kind, row.index, row.node) for row in rows]


def test_a_claim_of_several_nodes_writes_all_of_it(database: Database) -> None:
    with database.write() as session:
        run_id = add_run(session, num_nodes=2).id
        placement = [Placement("a", "host-a", "boot", [0, 1]), Placement("b", "host-b", "boot", [3])]
        assert runs.claim(session, run_id, placement=placement, actor="scheduler") == 1
    with database.read() as session:
        nodes = session.exec(select(AttemptNode).order_by(AttemptNode.node)).all()
        assert [(n.node, n.host, n.devices) for n in nodes] == [(0, "host-a", [0, 1]), (1, "host-b", [3])]
    assert leases(database) == [("a", "gpu", 0, 0), ("a", "gpu", 1, 0), ("b", "gpu", 3, 1)]
    with database.write() as session:
        assert runs.release(session, run_id, 1, RunState.QUEUED, actor="supervisor", outcome="interrupted")
    assert leases(database) == []


def test_a_claim_of_a_device_that_is_taken_leaves_nothing_behind(database: Database) -> None:
    with database.write() as session:
        first, second = add_run(session).id, add_run(session).id
        assert claim_by(session, first, gpus=[1]) == 1
        assert claim_by(session, second, gpus=[0, 1]) is None
        assert claim_by(session, second, gpus=[0]) == 1
    with database.read() as session:
        assert len(session.exec(select(Attempt)).all()) == 2
        assert session.get_one(Run, second).attempt == 1


def test_no_code_can_lease_a_device_twice(database: Database) -> None:
    with database.write() as session:
        run_id = add_run(session).id
        claim_by(session, run_id, gpus=[0])
    with pytest.raises(IntegrityError), database.write() as session:
        session.add(DeviceLease(worker_id="w", kind=DeviceKind.GPU, index=0, run_id=run_id, attempt=1))


def test_a_quarantined_device_stays_taken_until_it_is_lifted(database: Database) -> None:
    with database.write() as session:
        run_id, other = add_run(session).id, add_run(session).id
        fence = claim_by(session, run_id, gpus=[0, 1])
        assert fence == 1
        runs.quarantine(session, run_id, fence, actor="supervisor", reason="hangs in the kernel", processes=[])
        assert runs.release(session, run_id, fence, RunState.CANCELLED, actor="s", outcome="stopped") is False
        runs.request_cancel(session, run_id, actor="user")
        assert runs.release(session, run_id, fence, RunState.CANCELLED, actor="s", outcome="stopped")
        assert claim_by(session, other, gpus=[1]) is None
        assert claim_by(session, other, gpus=[2]) == 1
        lease = session.exec(select(DeviceLease).where(DeviceLease.index == 1)).one()
        assert (lease.state, lease.reason) == (LeaseState.QUARANTINED, "hangs in the kernel")
        assert runs.lift_quarantine(session, lease, actor="worker", detail="gone")
        assert not runs.lift_quarantine(session, lease, actor="worker", detail="gone")
        held = session.exec(select(DeviceLease).where(DeviceLease.run_id == other)).one()
        assert not runs.lift_quarantine(session, held, actor="worker", detail="gone")
        assert {(one.kind, one.index) for one in held_devices(session)} == {("gpu", 0), ("gpu", 2)}
