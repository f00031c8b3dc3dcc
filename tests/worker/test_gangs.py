"""What becomes of a run on several nodes when one of them ends."""

import subprocess
import threading
import time
from typing import Any

import pytest
from sqlmodel import select

from rows import SOMEWHERE, add_run
from server.db.runs import (
    Placement,
    claim,
    end_node,
    heartbeat,
    nodes_of,
    note_processes,
    offer_rendezvous,
    rendezvous_of,
    request_cancel,
    set_supervisor,
)
from server.db.session import Database
from server.db.tables import DeviceLease, Intent, Run, RunState
from server.settings import Settings
from services import python, wait_until
from sparsify_core.events import AttemptFinished
from worker import leader, processes
from worker.ending import Evidence, judge
from worker.leader import Leader, Members
from worker.member import Member
from worker.orphans import lift_quarantines
from worker.reaper import Reaper
from worker.rendezvous import Rendezvous, free_endpoint, own_address


@pytest.fixture
def gang(database: Database) -> tuple[str, int]:
    """Id and fence of a run that trains on three hosts."""
    with database.write() as session:
        run_id = add_run(session, num_nodes=3).id
        placement = [Placement(f"w{number}", f"host{number}", "boot", ()) for number in range(3)]
        fence = claim(session, run_id, placement=placement, actor="test")
        assert fence is not None
        for node in range(3):
            assert set_supervisor(session, run_id, fence, SOMEWHERE, node=node)
    return run_id, fence


def end(database: Database, gang: tuple[str, int], node: int, exit_code: int) -> None:
    with database.write() as session:
        end_node(session, *gang, node, exit_code=exit_code)


def test_the_nodes_meet_where_the_leader_says(database: Database, gang: tuple[str, int]) -> None:
    with database.write() as session:
        assert rendezvous_of(session, *gang) == ""
        offer_rendezvous(session, *gang, "host0:1234")
        assert rendezvous_of(session, *gang) == "host0:1234"
    assert own_address("", ["a", "a"]) == "127.0.0.1"
    assert own_address("10.0.0.7", ["a", "b"]) == "10.0.0.7"
    assert 0 < int(free_endpoint("host").removeprefix("host:")) < 65536
    options = Rendezvous("host:1", "run-1", num_nodes=3, address="me", is_host=False).options
    assert options[options.index("--rdzv-endpoint") :][:2] == ["--rdzv-endpoint", "host:1"]
    assert "is_host=0,join_timeout=600" in options


def test_the_leader_waits_for_the_accounts_of_its_members(
    database: Database, gang: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = Members(database, *gang)
    end(database, gang, 1, 7)
    found.look()
    assert (found.exit_code, found.have_ended) == (7, False)
    monkeypatch.setattr(leader, "ACCOUNT_S", 0.1)
    assert not found.wait(found.look)  # the other one says nothing

    def last_account() -> None:
        end(database, gang, 2, 0)
        found.look()

    monkeypatch.setattr(leader, "ACCOUNT_S", 60.0)
    assert found.wait(last_account)
    assert found.exit_code == 7


def test_training_that_goes_on_without_a_broken_node_is_ended(
    database: Database, gang: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leader, "BROKEN_GRACE_S", 0.05)
    found = Members(database, *gang)
    end(database, gang, 1, 0)
    found.look()
    time.sleep(0.1)
    assert not found.are_broken  # it is done
    end(database, gang, 2, 1)
    found.look()
    time.sleep(0.1)
    assert found.are_broken


def test_one_silent_node_costs_the_gang_its_attempt_and_an_ended_one_does_not(
    database: Database, settings: Settings, gang: tuple[str, int]
) -> None:
    clock = [0.0]
    reaper = Reaper(database, settings, host="elsewhere", clock=lambda: clock[0])
    run_id, fence = gang

    def beat(*nodes: int) -> None:
        with database.write() as session:
            for node in nodes:
                assert heartbeat(session, run_id, fence, node=node)

    def reaped_while_alive(*nodes: int) -> list[tuple[str, RunState]]:
        """In a little more than a lease."""
        for _ in range(4):
            clock[0] += settings.lease_s / 3
            beat(*nodes)
            if reaped := reaper.reap():
                return reaped
        return []

    reaper.reap()
    end(database, gang, 2, 0)
    assert reaped_while_alive(0, 1) == []  # node 2 has ended
    assert reaped_while_alive(0) == [(run_id, RunState.RETRY_WAIT)]
    with database.read() as session:
        run = session.get_one(Run, run_id)
        assert (run.reason_code, run.losses, run.failures) == ("worker_lost", 1, 0)
        assert all(node.ended_at for node in nodes_of(session, *gang))


def states_of_devices(database: Database) -> list[tuple[str, str]]:
    with database.read() as session:
        found = session.exec(select(DeviceLease).order_by(DeviceLease.worker_id)).all()
        return [(lease.worker_id, lease.state) for lease in found]


def test_the_leader_gives_back_the_devices_once_its_members_have_ended(
    database: Database, settings: Settings, gang: tuple[str, int]
) -> None:
    run_id, fence = gang
    with database.write() as session:
        request_cancel(session, run_id, actor="user")
    concluding = threading.Thread(target=Leader(settings, run_id, fence)._conclude, args=(0,))
    concluding.start()

    def has_beaten() -> bool:
        with database.read() as session:
            return bool(nodes_of(session, run_id, fence)[0].heartbeat)

    wait_until(has_beaten, timeout_s=60, what="the leader to wait with its lease held")
    assert {state for _, state in states_of_devices(database)} == {"held"}
    for node in (1, 2):
        end(database, gang, node, 0)
    concluding.join(timeout=60)
    with database.read() as session:
        assert session.get_one(Run, run_id).state == RunState.CANCELLED
    assert states_of_devices(database) == []


def test_devices_of_members_that_have_not_ended_are_kept_until_they_are_gone(
    database: Database, settings: Settings, gang: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leader, "ACCOUNT_S", 0.1)
    run_id, fence = gang
    member = subprocess.Popen(python("-c", "import time; time.sleep(60)"), env={})
    with database.write() as session:
        request_cancel(session, run_id, actor="user")
        note_processes(session, run_id, fence, 1, [processes.identity(member.pid)])
    try:
        Leader(settings, run_id, fence)._conclude(0)
        assert states_of_devices(database) == [("w1", "quarantined"), ("w2", "quarantined")]
        assert (lift_quarantines(database, "w1"), lift_quarantines(database, "w2")) == (0, 1)
    finally:
        member.kill()
        member.wait()
    assert lift_quarantines(database, "w1") == 1


def test_a_member_that_cannot_start_says_why(database: Database, settings: Settings) -> None:
    with database.write() as session:
        run_id = add_run(session, num_nodes=2).id
        placement = [Placement(f"w{number}", f"host{number}", "boot", ()) for number in range(2)]
        fence = claim(session, run_id, placement=placement, actor="test") or 0
        assert set_supervisor(session, run_id, fence, SOMEWHERE)
        offer_rendezvous(session, run_id, fence, "host0:1234")
    (settings.data_dir / "runs").write_text("in the way")
    assert Member(settings, run_id, fence, 1).run() == 0
    (settings.data_dir / "runs").unlink()
    killed_by_the_leader = -9
    Leader(settings, run_id, fence)._conclude(killed_by_the_leader)
    with database.read() as session:
        run = session.get_one(Run, run_id)
    assert (run.state, run.reason_code) == (RunState.FAILED, "start_failed")
    assert "training could not be started" in run.message


@pytest.mark.parametrize(
    ("evidence", "code"),
    [({"has_lost_node": True}, "worker_lost"), ({"killed_by": 9}, "killed"), ({}, "communication_error")],
)
def test_the_complaints_of_the_survivors_are_not_the_reason(evidence: dict[str, Any], code: str) -> None:
    complaint = AttemptFinished(outcome="failed", reason_code="communication_error", message="connection closed")
    values = {"finished": complaint, "has_checkpoint": True, "returncode": 1, "error": ""} | evidence
    ending = judge(Evidence(**values), intent=Intent.RUN, spent={"failures": 0, "losses": 0})
    assert (ending.to, ending.reason_code, ending.spends) == (RunState.RETRY_WAIT, code, "losses")
