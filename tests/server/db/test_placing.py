"""The scheduling pass against the database: attempts, nodes, leases and words, on both engines and under races."""

import time
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest
from sqlalchemy import event
from sqlmodel import col, select

from rows import add_run, add_worker
from server.db.placing import Placed, has_queued, place_queued
from server.db.runs import release, request_cancel, set_queue_paused
from server.db.session import Database
from server.db.tables import AttemptNode, DeviceLease, LeaseState, Run, RunState, Worker, WorkerState
from server.db.workers import set_worker_state
from server.scheduling import GB, DeviceKind


def place(database: Database) -> list[Placed]:
    with database.write() as session:
        return place_queued(session, actor="worker here", now=time.time())


def queue(database: Database, name: str = "run", **values: Any) -> str:
    with database.write() as session:
        return add_run(session, name=name, **values).id


def words(database: Database, run_id: str) -> str:
    with database.read() as session:
        return session.get_one(Run, run_id).waits_for


def leases(database: Database) -> set[tuple[str, str, int, str]]:
    with database.read() as session:
        return {(row.worker_id, row.kind, row.index, row.run_id) for row in session.exec(select(DeviceLease))}


def test_a_pass_starts_what_fits_on_any_worker_and_says_what_the_rest_waits_for(database: Database) -> None:
    with database.write() as session:
        small = add_worker(session, "small", num_gpus=1, memory_gb=24, labels=["lab"]).id
        big = add_worker(session, "big", num_gpus=2).id
    needy = queue(database, "needy", num_processes=2, min_memory_bytes=40 * GB, priority=2)
    labelled = queue(database, "labelled", labels=["lab"], priority=1)
    late = queue(database, "late")
    placed = place(database)
    assert [(one.run_id, one.worker_ids) for one in placed] == [(needy, (big,)), (labelled, (small,))]
    assert leases(database) == {
        (big, "gpu", 0, needy),
        (big, "gpu", 1, needy),
        (small, "gpu", 0, labelled),
    }
    assert words(database, late) == "waits for 1 GPU; GPU 0 of big is held by run needy; position 1"
    assert words(database, needy) == ""
    with database.read() as session:
        assert session.get_one(Run, needy).state == RunState.STARTING
        (node,) = session.exec(select(AttemptNode).where(AttemptNode.run_id == needy))
    assert (node.worker_id, node.host, node.devices, node.supervisor_pid) == (big, "big", [0, 1], 0)


def test_freed_devices_go_to_the_next_in_line(database: Database) -> None:
    with database.write() as session:
        add_worker(session, num_gpus=1)
    first, second = queue(database, "first"), queue(database, "second")
    (placed,) = place(database)
    assert place(database) == []
    with database.write() as session:
        release(session, first, placed.fence, RunState.COMPLETED, actor="test", outcome="completed")
    assert [one.run_id for one in place(database)] == [second]


def test_words_are_written_only_when_they_change(database: Database) -> None:
    with database.write() as session:
        add_worker(session)
    for number in range(5):
        queue(database, f"run {number}")
    place(database)
    statements: list[str] = []
    event.listen(database.engine, "before_cursor_execute", lambda *args: statements.append(args[2]))
    place(database)
    assert not [statement for statement in statements if statement.startswith("UPDATE run ")]


@pytest.mark.parametrize(("rate", "sentence"), [(100.0, "frees in ~10 min (run a)"), ("nan", "is held by run a")])
def test_the_throughput_of_running_runs_tells_when_devices_are_free(
    database: Database, rate: float | str, sentence: str
) -> None:
    with database.write() as session:
        add_worker(session, num_gpus=1)
    progress = {"step": 400, "total_steps": 1000, "tokens_per_step": 100, "latest": {"tokens_per_s": rate}}
    queue(database, "a", **progress)
    late = queue(database, "b")
    place(database)
    assert words(database, late) == f"waits for 1 GPU; GPU 0 {sentence}; position 1"


def test_nothing_starts_on_a_paused_queue_or_a_draining_worker(database: Database) -> None:
    with database.write() as session:
        worker = add_worker(session).id
        set_queue_paused(session, paused=True, reason="upgrade")
    run_id = queue(database)
    assert place(database) == []
    assert words(database, run_id) == "the queue is paused: upgrade; position 1"
    cancelled = queue(database)
    place(database)
    with database.write() as session:
        request_cancel(session, cancelled, actor="user")
    assert words(database, cancelled) == ""
    with database.write() as session:
        set_queue_paused(session, paused=False)
        assert set_worker_state(session, worker, WorkerState.DRAINING)
        assert not set_worker_state(session, worker, WorkerState.DRAINING)
    assert place(database) == []
    assert "draining" in words(database, run_id)
    with database.write() as session:
        set_worker_state(session, worker, WorkerState.ACTIVE)
    assert len(place(database)) == 1


def test_a_worker_of_another_version_takes_nothing(database: Database) -> None:
    with database.write() as session:
        add_worker(session, protocol=0)
    queue(database)
    assert place(database) == []


def test_a_gang_is_one_attempt_with_a_node_on_each_worker(database: Database) -> None:
    with database.write() as session:
        workers = {add_worker(session, name).id for name in ("one", "two")}
    gang, alone = queue(database, "gang", num_nodes=2, priority=1), queue(database, "alone")
    (placed,) = place(database)
    assert (placed.run_id, set(placed.worker_ids)) == (gang, workers)
    with database.read() as session:
        nodes = session.exec(select(AttemptNode).order_by(col(AttemptNode.node))).all()
    assert [(node.node, node.attempt) for node in nodes] == [(0, 1), (1, 1)]
    assert {kind for _, kind, _, _ in leases(database)} == {DeviceKind.CPU}
    assert words(database, alone).startswith("waits for a CPU slot")


def test_a_gpu_is_taken_whatever_number_its_worker_gives_it_later(database: Database) -> None:
    with database.write() as session:
        worker = add_worker(session, num_gpus=2)
        worker_id, first = worker.id, worker.devices[0]
    training = queue(database)
    assert [one.run_id for one in place(database)] == [training]
    with database.write() as session:  # restarted, it sees its GPUs in another order, and then not the first one
        row = session.get_one(Worker, worker_id)
        row.devices = [first | {"index": 0, "uuid": "another"}, first | {"index": 1}]
    waiting = queue(database)
    assert place(database) == []
    with database.write() as session:
        session.get_one(Worker, worker_id).devices = [first | {"index": 0, "uuid": "another"}]
        second = add_worker(session, "second", num_gpus=1)
        second.devices = [first]
    assert place(database) == []
    with database.write() as session:
        assert release(session, training, 1, RunState.COMPLETED, actor="supervisor", outcome="completed")
    assert [one.run_id for one in place(database)] == [waiting]


def test_a_quarantined_device_is_not_given_away(database: Database) -> None:
    with database.write() as session:
        worker = add_worker(session, num_gpus=1)
        old = add_run(session, state=RunState.FAILED)
        lease = {"worker_id": worker.id, "kind": DeviceKind.GPU, "index": 0, "run_id": old.id, "attempt": 1}
        session.add(DeviceLease(**lease, state=LeaseState.QUARANTINED))
    run_id = queue(database)
    assert place(database) == []
    assert "set aside" in words(database, run_id)


def test_a_run_whose_backoff_is_over_is_placed_too(database: Database) -> None:
    with database.write() as session:
        add_worker(session, cpu_slots=2)
    run_id = queue(database, state=RunState.RETRY_WAIT, not_before=time.time() - 1)
    queue(database, state=RunState.RETRY_WAIT, not_before=time.time() + 60)
    with database.read() as session:
        assert has_queued(session, now=time.time())
    assert [one.run_id for one in place(database)] == [run_id]
    with database.read() as session:
        assert not has_queued(session, now=time.time())


def test_passes_at_the_same_moment_give_nothing_away_twice(database: Database) -> None:
    with database.write() as session:
        for name in ("one", "two"):
            add_worker(session, name, num_gpus=4)
    run_ids = {queue(database, f"run {number}", num_processes=1 + number % 3) for number in range(12)}
    barrier = Barrier(4)

    def work(_: int) -> list[Placed]:
        barrier.wait()
        return [placed for _ in range(5) for placed in place(database)]

    with ThreadPoolExecutor(4) as pool:
        placed = [one.run_id for found in pool.map(work, range(4)) for one in found]
    assert len(placed) == len(set(placed)) > 3
    assert set(placed) < run_ids
    with database.read() as session:
        sizes = {run.id: run.num_processes for run in session.exec(select(Run).where(Run.state == RunState.STARTING))}
    assert sizes.keys() == set(placed)
    assert len(leases(database)) == sum(sizes.values()) <= 8
