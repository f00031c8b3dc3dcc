"""What becomes of a run on several nodes when one of them ends."""

import time
from typing import Any

import pytest

from rows import SOMEWHERE, add_run
from server.db.runs import (
    Placement,
    claim,
    end_node,
    heartbeat,
    nodes_of,
    offer_rendezvous,
    rendezvous_of,
    set_supervisor,
)
from server.db.session import Database
from server.db.tables import Intent, Run, RunState
from server.settings import Settings
from sparsify_core.events import AttemptFinished
from worker import leader
from worker.ending import Evidence, judge
from worker.leader import Members
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


@pytest.mark.parametrize(
    ("evidence", "code"),
    [({"has_lost_node": True}, "worker_lost"), ({"killed_by": 9}, "killed"), ({}, "communication_error")],
)
def test_the_complaints_of_the_survivors_are_not_the_reason(evidence: dict[str, Any], code: str) -> None:
    complaint = AttemptFinished(outcome="failed", reason_code="communication_error", message="connection closed")
    values = {"finished": complaint, "has_checkpoint": True, "returncode": 1, "error": ""} | evidence
    ending = judge(Evidence(**values), intent=Intent.RUN, spent={"failures": 0, "losses": 0})
    assert (ending.to, ending.reason_code, ending.spends) == (RunState.RETRY_WAIT, code, "losses")
