"""Whatever users, workers and the reaper do, in whatever order: the promises about runs hold.

Hypothesis chooses what happens next. Users go through the real REST API, workers use the functions that real workers
use, on a real database; only training is left out.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, Phase
from hypothesis import settings as profile
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy.exc import IntegrityError
from sqlmodel import SQLModel, col, select

from clients import serve
from promises import one_way
from server.app import create_app
from server.db import runs
from server.db.runs import holder as holders
from server.db.runs.moves import Move, Snapshot
from server.db.runs.queue import waiting
from server.db.session import Database
from server.db.tables import (
    ACTIVE,
    TERMINAL,
    Attempt,
    DeviceLease,
    Intent,
    Run,
    RunState,
)
from server.settings import Settings
from sparsify_core.events import AttemptFinished
from worker.ending import Evidence, judge

pytestmark = pytest.mark.faults

BODY = {"config": {"model": "owner/model", "dataset": "owner/data"}}
DEVICES = [("a", (), 0), ("b", (0,), 0), ("b", (1,), 0), ("b", (0, 1), 0)]
"""What a claim may ask for: the cores of worker `a`, GPUs of worker `b`."""
KEPT = ("api_token", "queue_state")
"""Tables that outlast an example."""
REQUESTS = ["cancel", "pause", "resume", "requeue"]
ENDS = [
    Evidence(finished=AttemptFinished(outcome="completed"), has_checkpoint=True, returncode=0),
    Evidence(finished=AttemptFinished(outcome="stopped"), has_checkpoint=True, returncode=0),
    Evidence(finished=AttemptFinished(outcome="failed", reason_code="data_error"), has_checkpoint=False, returncode=1),
    Evidence(finished=AttemptFinished(outcome="failed", reason_code="disk_full"), has_checkpoint=True, returncode=1),
    Evidence(finished=None, has_checkpoint=False, returncode=-9),
]
VANISHED = Evidence(finished=None, has_checkpoint=False, returncode=None)


class Holder(NamedTuple):
    """A supervisor: it believes that it holds the run."""

    run_id: str
    fence: int


class AnyOrder(RuleBasedStateMachine):
    """The users and the workers of one deployment."""

    client: TestClient
    database: Database
    run_ids = Bundle("run_ids")
    holders = Bundle("holders")

    def __init__(self) -> None:
        super().__init__()
        self.accepted: set[str] = set()
        self.by_key: dict[str, str] = {}
        self.ended: dict[str, str] = {}
        self.successors: dict[str, str] = {}
        self.cancelled: set[str] = set()
        """Runs of which somebody was told that they are or will be cancelled."""
        with self.database.write() as session:
            for table in reversed(SQLModel.metadata.sorted_tables):
                if table.name not in KEPT:
                    session.execute(table.delete())

    # --- users

    @rule(target=run_ids, key=st.sampled_from(["", "k1", "k2"]))
    def submit(self, key: str) -> str:
        headers = {"Idempotency-Key": key} if key else {}
        answer = self.client.post("/api/v1/runs", json=BODY, headers=headers)
        assert answer.status_code == 201, answer.text
        run_id = str(answer.json()["id"])
        assert self.by_key.setdefault(key or run_id, run_id) == run_id, "one key made two runs"
        self.accepted.add(run_id)
        return run_id

    @rule(run_id=run_ids, request=st.sampled_from(REQUESTS))
    def ask(self, run_id: str, request: str) -> None:
        """The answer is the truth, and a refusal names the state and changes nothing."""
        before = self.run(run_id)
        answer = self.client.post(f"/api/v1/runs/{run_id}/{request}")
        after = self.run(run_id)
        if answer.status_code == 409:
            assert answer.json()["errors"][0]["code"] == before.state
            assert (after.state, after.intent) == (before.state, before.intent)
            assert request != "cancel"
            return
        assert answer.status_code == 200, answer.text
        assert (answer.json()["state"], answer.json()["intent"]) == (after.state, after.intent)
        if request == "cancel":
            assert after.state in (*TERMINAL, RunState.STOPPING)
            self.cancelled.add(run_id)

    @rule(target=run_ids, run_id=run_ids)
    def retry(self, run_id: str) -> Any:
        """However often it is asked for, there is one successor."""
        may = self.state(run_id) in (RunState.FAILED, RunState.CANCELLED)
        answer = self.client.post(f"/api/v1/runs/{run_id}/retry")
        assert answer.status_code == (201 if may else 409), answer.text
        if not may:
            return multiple()
        successor = str(answer.json()["id"])
        assert self.successors.setdefault(run_id, successor) == successor, "a run has two successors"
        self.accepted.add(successor)
        return successor

    @rule(run_id=run_ids, other_id=run_ids, ahead=st.booleans())
    def move(self, run_id: str, other_id: str, ahead: bool) -> None:
        before = self.order()
        place = {"ahead_of" if ahead else "behind_of": other_id}
        answer = self.client.post(f"/api/v1/runs/{run_id}/move", json=place)
        after = self.order()
        assert answer.status_code == (200 if {run_id, other_id} <= set(before) else 409), answer.text
        assert [one for one in after if one != run_id] == [one for one in before if one != run_id]
        if answer.status_code == 200 and run_id != other_id:
            assert after.index(other_id) - after.index(run_id) == (1 if ahead else -1)

    @rule(run_id=run_ids, priority=st.integers(-1, 1))
    def prioritize(self, run_id: str, priority: int) -> None:
        answer = self.client.patch(f"/api/v1/runs/{run_id}", json={"priority": priority})
        assert answer.status_code == (409 if self.state(run_id) in TERMINAL else 200), answer.text
        with self.database.read() as session:
            priorities = [run.priority for run in waiting(session)]
        assert priorities == sorted(priorities, reverse=True)

    # --- workers

    @rule(target=holders, device=st.sampled_from(DEVICES))
    def claim(self, device: tuple[str, tuple[int, ...], int]) -> Any:
        """The first of the queue gets the device, unless it is taken."""
        place = runs.Placement(device[0], device[0], "", device[1], device[2])
        with self.database.write() as session:
            queued = runs.next_queued(session)
            if not queued:
                return multiple()
            first = queued[0].id
            leased = session.exec(select(DeviceLease).where(DeviceLease.worker_id == place.worker_id)).all()
            is_free = not {(lease.kind, lease.index) for lease in leased} & {
                (kind, index) for kind, index, _ in place.devices
            }
            fence = runs.claim(session, first, placement=[place], actor="worker")
        assert (fence is not None) == is_free
        if fence is None:
            return multiple()
        assert first not in self.cancelled, "a cancelled run was started"
        return Holder(first, fence)

    @rule(holder=holders)
    def renew(self, holder: Holder) -> None:
        with self.database.write() as session:
            seen = runs.heartbeat(session, holder.run_id, holder.fence)
        assert (seen is not None) == self.holds(holder)

    @rule(holder=holders)
    def make_first_step(self, holder: Holder) -> None:
        may = self.holds(holder) and self.state(holder.run_id) == RunState.STARTING
        with self.database.write() as session:
            assert runs.note_first_step(session, holder.run_id, holder.fence) == may

    @rule(holder=holders)
    def drain(self, holder: Holder) -> None:
        held = self.holds(holder)
        with self.database.write() as session:
            assert not runs.drain(session, holder.run_id, holder.fence) or held

    @rule(holder=holders, evidence=st.sampled_from(ENDS))
    def end(self, holder: Holder, evidence: Evidence) -> None:
        """A supervisor releases its run: one that has lost it changes nothing."""
        held, before = self.holds(holder), self.state(holder.run_id)
        assert self.conclude(holder, evidence) == held
        assert held or self.state(holder.run_id) == before

    @rule(holder=consumes(holders))
    def end_and_forget(self, holder: Holder) -> None:
        self.end(holder, ENDS[0])

    @rule(holder=holders)
    def reap(self, holder: Holder) -> None:
        """The supervisor is silent: the reaper takes the run away from it, and only from it."""
        held = self.holds(holder)
        assert self.conclude(holder, VANISHED, takes_away=True) == held
        assert not self.holds(holder)

    @rule(target=holders)
    def start(self) -> Holder:
        """A new run, and a worker that has nothing else to do."""
        run_id = self.submit("")
        return Holder(run_id, self.claim_elsewhere(run_id))

    @rule(target=holders)
    def take_over(self) -> Holder:
        """A worker is silent, its run is taken away, and another one goes on with it. Then it wakes up, and writes."""
        silent = self.start()
        self.reap(silent)
        self.backoffs_end()
        successor = Holder(silent.run_id, self.claim_elsewhere(silent.run_id))
        self.renew(silent)
        self.make_first_step(silent)
        self.drain(silent)
        self.end(silent, ENDS[0])
        return successor

    @rule(holder=holders, requests=st.lists(st.sampled_from(REQUESTS), min_size=2, max_size=3))
    def ask_again(self, holder: Holder, requests: list[str]) -> None:
        """The user changes his mind while a worker has the run."""
        for request in requests:
            self.ask(holder.run_id, request)

    def claim_elsewhere(self, run_id: str) -> int:
        """The fence of a claim by a worker of which nothing else is wanted."""
        with self.database.write() as session:
            place = runs.Placement(f"{run_id[-20:]}/{self.run(run_id).attempt}", "another", "", ())
            fence = runs.claim(session, run_id, placement=[place], actor="worker")
        assert fence is not None
        return fence

    @rule()
    def backoffs_end(self) -> None:
        with self.database.write() as session:
            runs.queue_due(session, now=float("inf"))

    def conclude(self, holder: Holder, evidence: Evidence, *, takes_away: bool = False) -> bool:
        """As `worker.ending.conclude`, without the files."""
        with self.database.write() as session:
            run = session.get_one(Run, holder.run_id, with_for_update=True)
            spent = {"failures": run.failures, "losses": run.losses}
            seen = Evidence(**(vars(evidence) | {"is_stopping": run.state == RunState.STOPPING}))
            ending = judge(seen, intent=Intent(run.intent), spent=spent)
            if ending.spends:
                spent[ending.spends] += 1
            return runs.release(
                session,
                holder.run_id,
                holder.fence,
                ending.to,
                actor="reaper" if takes_away else "supervisor",
                outcome=ending.outcome,
                takes_away=takes_away,
                reason_code=ending.reason_code,
                **spent,
            )

    # --- what always holds

    @invariant()
    def promises_are_kept(self) -> None:
        with self.database.read() as session:
            found = {run.id: run for run in session.exec(select(Run))}
            leases = session.exec(select(DeviceLease)).all()
            open_attempts = session.exec(select(Attempt.run_id).where(col(Attempt.ended_at).is_(None))).all()
        assert found.keys() == self.accepted, "an accepted run is missing"
        for run_id, run in found.items():
            if run.state in TERMINAL:
                assert self.ended.setdefault(run_id, run.state) == run.state, "an end was overwritten"
            else:
                assert run_id not in self.ended, "a run has left its end"
            if run_id in self.cancelled:
                assert run.state in (*TERMINAL, RunState.STOPPING), "a cancelled run goes on"
        training = {run_id for run_id, run in found.items() if run.state in ACTIVE}
        assert {lease.run_id for lease in leases} == training
        assert all(lease.attempt == found[lease.run_id].fence == found[lease.run_id].attempt for lease in leases)
        assert sorted(open_attempts) == sorted(training)

    def teardown(self) -> None:
        """From wherever it is, every accepted run can come to its end, and all devices become free."""
        for run_id in self.accepted:
            self.finish(run_id)
        with self.database.read() as session:
            assert session.exec(select(DeviceLease)).all() == []
            for run_id in self.accepted:
                assert session.get_one(Run, run_id).state in TERMINAL
                one_way(session, run_id)

    def finish(self, run_id: str) -> None:
        for _ in range(10):
            run = self.run(run_id)
            if run.state in TERMINAL:
                return
            if run.state in ACTIVE:
                self.conclude(Holder(run_id, run.fence), ENDS[0])
            elif run.state == RunState.QUEUED:
                with self.database.write() as session:
                    runs.claim(session, run_id, placement=[runs.Placement(run_id, "h", "", ())], actor="worker")
            elif run.state == RunState.PAUSED:
                self.ask(run_id, "resume")
            else:
                self.backoffs_end()
        raise AssertionError(f"a run in {self.state(run_id)} does not come to its end")

    # --- looking

    def run(self, run_id: str) -> Run:
        with self.database.read() as session:
            return session.get_one(Run, run_id)

    def state(self, run_id: str) -> str:
        return self.run(run_id).state

    def order(self) -> list[str]:
        with self.database.read() as session:
            return [run.id for run in waiting(session)]

    def holds(self, holder: Holder) -> bool:
        run = self.run(holder.run_id)
        return run.state in ACTIVE and run.fence == holder.fence


def explore(settings: Settings, *, examples: int, phases: Sequence[Phase] = tuple(Phase)) -> None:
    app = create_app(settings)
    with serve(app) as client:
        machine = type("AnyOrderHere", (AnyOrder,), {"client": client, "database": app.state.db})
        chosen = profile(
            max_examples=examples,
            phases=phases,
            stateful_step_count=30,
            deadline=None,
            database=None,
            derandomize=examples < 100,
            suppress_health_check=list(HealthCheck),
        )
        run_state_machine_as_test(machine, settings=chosen)


def test_promises_hold_in_any_order(settings: Settings) -> None:
    explore(settings, examples=30)


@pytest.mark.long
def test_promises_hold_in_many_more_orders(settings: Settings) -> None:
    explore(settings, examples=500)


def without_fence(move: Move, run: Snapshot, fence: int | None = None) -> bool:
    return run.state in move.sources and run.intent in move.intents


def without_intent(move: Move, run: Snapshot, fence: int | None = None) -> bool:
    return run.state in move.sources and (not move.is_fenced or fence == run.fence)


def nothing(*_: object) -> None:
    pass


MUTANTS: dict[str, tuple[object, str, Callable[..., object]]] = {
    "a holder needs no fence": (Move, "allows", without_fence),
    "what the user wants does not count": (Move, "allows", without_intent),
    "a release keeps the devices": (holders, "free_devices", nothing),
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_without_one_defence_a_promise_is_seen_to_break(
    mutant: str, sqlite_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(*MUTANTS[mutant])
    with pytest.raises((AssertionError, IntegrityError)):
        explore(sqlite_settings, examples=40, phases=[Phase.generate])
