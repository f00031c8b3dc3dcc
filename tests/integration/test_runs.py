"""Real runs: a Celery worker process, its supervisors, torchrun, and what becomes of them under faults."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import redis
from sqlmodel import col, select

from rows import stored_points
from server.db.runs import request_cancel, request_pause, resume
from server.db.session import Database
from server.db.tables import (
    ACTIVE,
    TERMINAL,
    Attempt,
    AttemptNode,
    Checkpoint,
    DeviceLease,
    Run,
    RunEvent,
    RunState,
)
from server.queue import CLAIM_TASK, QUEUE, redis_client_url
from server.services.control import retry_run
from server.settings import Settings
from services import python, wait_until
from sparsify_core.config import RunConfig
from sparsify_core.manifest import file_sha256
from worker import processes
from worker.app import make_app
from worker.failures import BUDGET

pytestmark = pytest.mark.integration

START_S = 400.0
"""Importing torch three times on a busy machine takes a while."""


class Bench:
    """A worker process on a database and a broker, and runs of the tiny model."""

    def __init__(self, settings: Settings, model: Path, text: Path) -> None:
        self.settings = settings
        self.database = Database(settings)
        self._model = model
        self._text = text
        self.worker: subprocess.Popen[bytes] | None = None
        self._others: list[subprocess.Popen[bytes]] = []

    def start_worker(self, name: str = "") -> None:
        """The worker of the bench, or a further one of this name."""
        environment = os.environ | {
            "SPARSEBOARD_DATA_DIR": str(self.settings.data_dir),
            "DATABASE_URL": self.settings.database_url,
            "REDIS_URL": self.settings.redis_url,
        }
        if name:
            environment["SPARSEBOARD_WORKER_NAME"] = name
            self._others.append(subprocess.Popen(python("-m", "worker"), env=environment))
        else:
            self.worker = subprocess.Popen(python("-m", "worker"), env=environment)

    def kill_worker(self) -> None:
        assert self.worker is not None
        self.worker.kill()
        self.worker.wait()

    def queue(self, **values: Any) -> str:
        asked = {name: values.pop(name) for name in ("num_processes", "num_nodes") if name in values}
        config = RunConfig.model_validate(
            {
                "model": str(self._model),
                "dataset": str(self._text),
                "ctx_len": 64,
                "batch_size": 4,
                "hookpoints": ["layers.0"],
                "sae": {"expansion_factor": 2, "k": 4},
                "optimizer": "adam",
                "lr_warmup_steps": 1,
                "eval_tokens": 256,
                "max_tokens": 64 * 4 * 8,
                **values,
            }
        )
        with self.database.write() as session:
            run = Run(name="test", config=config.model_dump(mode="json"), **asked)
            session.add(run)
            return run.id

    def queue_long(self, **values: Any) -> str:
        return self.queue(max_tokens=None, ctx_len=8, batch_size=1, **values)

    def run(self, run_id: str) -> Run:
        with self.database.read() as session:
            return session.get_one(Run, run_id)

    def attempt(self, run_id: str) -> Attempt:
        with self.database.read() as session:
            return session.get_one(Attempt, (run_id, session.get_one(Run, run_id).attempt))

    def supervisor(self, run_id: str, number: int = 0) -> int:
        """Process id of the supervisor of a node of the newest attempt; 0 while it is being started."""
        with self.database.read() as session:
            node = session.get_one(AttemptNode, (run_id, session.get_one(Run, run_id).attempt, number))
            return node.supervisor_pid

    def wait_end(self, run_id: str) -> Run:
        wait_until(lambda: self.run(run_id).state in TERMINAL, timeout_s=START_S, what="the run to end")
        return self.run(run_id)

    def wait_state(self, run_id: str, state: RunState) -> None:
        def is_there() -> bool:
            run = self.run(run_id)
            assert run.state == state or run.state not in TERMINAL, (run.message, run.log_tail)
            return run.state == state

        wait_until(is_there, timeout_s=START_S, what=f"the run to be {state}")

    def leases(self, run_id: str | None = None) -> list[DeviceLease]:
        with self.database.read() as session:
            return [row for row in session.exec(select(DeviceLease)) if run_id in (None, row.run_id)]

    def warnings(self, run_id: str) -> list[str]:
        with self.database.read() as session:
            statement = select(RunEvent.detail).where(RunEvent.run_id == run_id, RunEvent.kind == "warning")
            return list(session.exec(statement))

    def weights(self, run_id: str) -> tuple[int, str]:
        """Step and digest of the newest checkpoint's coder."""
        newest = self.settings.run_dir(run_id).published()[-1]
        return newest.step, file_sha256(newest.coder("layers.0").weights)

    def wait_training(self, run_id: str, *, attempt: int = 1, step: int = 2) -> None:
        def trains() -> bool:
            run = self.run(run_id)
            assert run.state not in TERMINAL, (run.message, run.log_tail)
            return (run.state, run.attempt) == (RunState.RUNNING, attempt) and run.step > step

        wait_until(trains, timeout_s=START_S, what=f"attempt {attempt} to train")

    def processes(self, run_id: str) -> list[psutil.Process]:
        return [entry.process for entry in processes.run_processes(run_id)]

    def history(self, run_id: str) -> list[str]:
        with self.database.read() as session:
            statement = select(RunEvent.kind).where(RunEvent.run_id == run_id).order_by(col(RunEvent.id))
            return list(session.exec(statement))

    def close(self) -> None:
        for worker in (*self._others, *([self.worker] if self.worker else [])):
            worker.terminate()
            worker.wait(timeout=20)
        with self.database.read() as session:
            for run_id in session.exec(select(Run.id)):
                processes.kill_run(run_id, up_to_fence=1000)
        self.database.engine.dispose()


def make_bench(settings: Settings, broker_url: str, tiny_model: Path, tiny_text: Path) -> Iterator[Bench]:
    redis.Redis.from_url(redis_client_url(broker_url)).flushall()
    bench = Bench(settings.model_copy(update={"redis_url": broker_url}), tiny_model, tiny_text)
    yield bench
    bench.close()


@pytest.fixture
def bench(sqlite_settings: Settings, broker_url: str, tiny_model: Path, tiny_text: Path) -> Iterator[Bench]:
    """On SQLite."""
    yield from make_bench(sqlite_settings, broker_url, tiny_model, tiny_text)


@pytest.fixture
def both(settings: Settings, broker_url: str, tiny_model: Path, tiny_text: Path) -> Iterator[Bench]:
    """Once on SQLite and once on PostgreSQL."""
    yield from make_bench(settings, broker_url, tiny_model, tiny_text)


def test_a_run_completes_once_although_wake_ups_are_lost_and_doubled(both: Bench) -> None:
    lost = both.queue()  # nobody is told
    redis.Redis.from_url(redis_client_url(both.settings.redis_url)).flushall()
    both.start_worker()
    app = make_app(both.settings)
    for _ in range(10):
        app.send_task(CLAIM_TASK, queue=QUEUE)

    run = both.wait_end(lost)
    assert (run.state, run.message, run.step, run.total_steps) == (RunState.COMPLETED, "", 8, 8)
    assert both.history(lost) == [RunState.STARTING, RunState.RUNNING, RunState.COMPLETED]
    with both.database.read() as session:
        assert len(session.exec(select(Attempt)).all()) == 1
        (checkpoint,) = session.exec(select(Checkpoint))
        steps = [point.step for key, point in stored_points(session, lost) if key == "fvu/layers.0"]
    run_dir = both.settings.run_dir(lost)
    assert (run_dir.root / checkpoint.path / "manifest.json").is_file()
    assert sorted(steps) == list(range(1, 9))
    assert run_dir.config.stat().st_mode & 0o777 == 0o600
    wait_until(lambda: not both.processes(lost), timeout_s=5, what="the supervisor to end")


def test_training_survives_its_worker_and_a_cancel_ends_every_process(bench: Bench) -> None:
    bench.start_worker()
    run_id = bench.queue_long(num_processes=2)
    bench.wait_training(run_id)
    supervisor = bench.supervisor(run_id)
    assert len(bench.processes(run_id)) >= 4  # supervisor, torchrun, two ranks
    environment = torchrun_of(supervisor).environ()
    assert not {"DATABASE_URL", "REDIS_URL", "SPARSEBOARD_DATABASE_URL"} & environment.keys()

    bench.kill_worker()
    redis.Redis.from_url(redis_client_url(bench.settings.redis_url)).flushall()
    step = bench.run(run_id).step
    bench.start_worker()
    wait_until(lambda: bench.run(run_id).step > step, timeout_s=20, what="training to go on")
    time.sleep(6)  # the new worker has looked at least once
    assert (bench.run(run_id).state, bench.run(run_id).fence) == (RunState.RUNNING, 1)
    assert bench.supervisor(run_id) == supervisor

    with bench.database.write() as session:
        assert request_cancel(session, run_id, actor="test") == RunState.STOPPING
    run = bench.wait_end(run_id)
    wait_until(lambda: not bench.processes(run_id), timeout_s=10, what="all processes to end")
    assert run.state == RunState.CANCELLED
    assert bench.settings.run_dir(run_id).published()  # saved before it stopped


def test_a_run_whose_supervisor_is_killed_waits_goes_on_and_fails_when_its_budget_is_spent(bench: Bench) -> None:
    bench.start_worker()
    run_id = bench.queue_long()
    bench.wait_training(run_id)
    first = bench.processes(run_id)
    os.kill(bench.supervisor(run_id), signal.SIGKILL)
    gone, alive = psutil.wait_procs(first, timeout=10)
    assert (len(gone), alive) == (len(first), [])

    bench.wait_state(run_id, RunState.RETRY_WAIT)
    run = bench.run(run_id)
    assert (run.failures, run.losses, run.reason_code, run.fence) == (0, 1, "worker_lost", 2)
    assert run.not_before is not None
    assert bench.leases() == []
    bench.wait_training(run_id, attempt=2)  # behind the backoff, by itself
    with bench.database.write() as session:
        session.get_one(Run, run_id).losses = BUDGET
    os.kill(bench.supervisor(run_id), signal.SIGKILL)
    run = bench.wait_end(run_id)
    assert (run.state, run.reason_code) == (RunState.FAILED, "worker_lost")
    assert f"{BUDGET + 1} attempts have failed so far" in run.message
    wait_until(lambda: not bench.processes(run_id), timeout_s=5, what="all processes to end")
    assert_one_curve(bench, run_id)


def torchrun_of(supervisor: int) -> psutil.Process:
    """Its other child is the relay of the log."""
    children = psutil.Process(supervisor).children()
    return next(child for child in children if "torch.distributed.run" in child.cmdline())


def test_failures_say_why_on_the_row(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "no-model").mkdir()
    bench.start_worker()
    run_id = bench.queue(model=str(tmp_path / "no-model"))
    run = bench.wait_end(run_id)
    assert (run.state, run.reason_code) == (RunState.FAILED, "model_error")
    assert str(tmp_path / "no-model") in run.message
    assert run.log_tail

    killed_id = bench.queue_long()
    bench.wait_training(killed_id)
    torchrun_of(bench.supervisor(killed_id)).children()[0].kill()
    bench.wait_state(killed_id, RunState.RETRY_WAIT)
    killed = bench.run(killed_id)
    assert (killed.reason_code, killed.losses) == ("killed", 1)
    assert "killed by signal 9" in killed.message


def test_pausing_and_retrying_change_nothing_about_the_result(bench: Bench) -> None:
    """Whatever ends an attempt, and although the newest checkpoint is damaged meanwhile."""
    bench.start_worker()
    config: dict[str, Any] = {"ctx_len": 8, "batch_size": 1, "save_every": 30, "keep_last": 3, "eval_tokens": 0}
    config["max_tokens"] = 8 * 600  # a quiet machine makes a hundred before it hears of a pause
    paused = bench.queue(**config)
    bench.wait_training(paused, step=32)
    with bench.database.write() as session:
        assert request_pause(session, paused, actor="test") == RunState.STOPPING
    bench.wait_state(paused, RunState.PAUSED)
    assert (bench.leases(paused), bench.run(paused).losses) == ([], 0)
    wait_until(lambda: not bench.processes(paused), timeout_s=10, what="all processes to end")
    before, newest = bench.settings.run_dir(paused).published()[-2:]
    with newest.coder("layers.0").weights.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        byte = file.read(1)
        file.seek(-1, os.SEEK_END)
        file.write(bytes([byte[0] ^ 1]))
    with bench.database.write() as session:
        assert resume(session, paused, actor="test") == RunState.QUEUED
    bench.wait_state(paused, RunState.COMPLETED)
    assert bench.attempt(paused).resumed_step == before.step > 0
    assert any("is damaged" in detail for detail in bench.warnings(paused))

    cancelled = bench.queue(**config)
    bench.wait_training(cancelled, step=32)
    with bench.database.write() as session:
        assert request_cancel(session, cancelled, actor="test") == RunState.STOPPING
    bench.wait_state(cancelled, RunState.CANCELLED)
    with bench.database.write() as session:
        successor = retry_run(session, cancelled, settings=bench.settings, actor="test").id
    saved = bench.settings.run_dir(cancelled).published()[-1].step
    bench.wait_state(successor, RunState.COMPLETED)
    assert bench.attempt(successor).resumed_step == saved > 0
    assert bench.settings.run_dir(cancelled).published()[-1].step == saved

    whole = bench.queue(**config)
    bench.wait_state(whole, RunState.COMPLETED)
    results = {run_id: bench.weights(run_id) for run_id in (paused, successor, whole)}
    assert results[paused] == results[successor] == results[whole]


def test_a_drained_run_spends_nothing_and_goes_on_from_its_checkpoint(bench: Bench) -> None:
    bench.start_worker()
    run_id = bench.queue_long()
    bench.wait_training(run_id)
    bench.worker.terminate()  # type: ignore[union-attr]
    bench.worker.wait(timeout=20)  # type: ignore[union-attr]
    assert bench.run(run_id).state in ACTIVE
    os.kill(bench.supervisor(run_id), signal.SIGTERM)
    wait_until(lambda: bench.run(run_id).state == RunState.QUEUED, timeout_s=20, what="the run to be queued")
    run = bench.run(run_id)
    assert (run.failures, run.losses) == (0, 0)
    assert bench.settings.run_dir(run_id).published()
    wait_until(lambda: not bench.processes(run_id), timeout_s=5, what="all processes to end")

    saved = bench.settings.run_dir(run_id).published()[-1].step
    bench.start_worker()
    bench.wait_training(run_id, attempt=2)
    assert bench.attempt(run_id).resumed_step == saved > 0
    wait_until(lambda: bench.run(run_id).step > saved + 5, timeout_s=60, what="training to go on")
    assert_one_curve(bench, run_id)


def assert_one_curve(bench: Bench, run_id: str) -> None:
    """No step is missing and none is there twice, whatever the number of attempts."""
    with bench.database.read() as session:
        steps = sorted(point.step for key, point in stored_points(session, run_id) if key == "lr")
    assert steps == list(range(1, len(steps) + 1))


def test_a_gang_that_loses_a_node_starts_again_and_ends_like_one_that_did_not(bench: Bench) -> None:
    """Two workers of one machine, a node of one process on each."""
    bench.start_worker()
    bench.start_worker("second")
    shape = {"num_nodes": 2, "max_tokens": 16 * 4 * 2 * 60, "ctx_len": 16, "save_every": 10}
    whole, broken = bench.queue(**shape), bench.queue(**shape)
    run = bench.wait_end(whole)
    assert (run.state, run.message, run.step, run.attempt) == (RunState.COMPLETED, "", 60, 1)
    with bench.database.read() as session:
        nodes = session.exec(select(AttemptNode).where(AttemptNode.run_id == whole)).all()
    assert len({node.worker_id for node in nodes}) == 2
    wait_until(lambda: not bench.processes(whole), timeout_s=10, what="all processes to end")

    wait_until(lambda: bench.run(broken).step > 25, timeout_s=START_S, what="the second gang to train", every_s=0.02)
    os.kill(bench.supervisor(broken, 1), signal.SIGKILL)
    run = bench.wait_end(broken)
    assert (run.state, run.message, run.step) == (RunState.COMPLETED, "", 60)
    assert (run.attempt, run.losses, run.failures) == (2, 1, 0)
    assert bench.attempt(broken).resumed_step >= 20
    assert_one_curve(bench, broken)
    weights = [bench.settings.run_dir(one).checkpoint(60).coder("layers.0").weights for one in (whole, broken)]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    wait_until(lambda: not bench.processes(broken), timeout_s=10, what="all processes to end")
