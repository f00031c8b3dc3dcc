"""Real runs in trouble: floods of output, hangs, full disks, losses that are no numbers, a broker that goes."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from sqlmodel import col, select

from clients import serve
from full_disk import FullDisk
from server.app import create_app
from server.db.runs import request_cancel, resume
from server.db.session import Database
from server.db.tables import ACTIVE, Attempt, QueueState, Run, RunEvent, RunState, Worker
from server.services.logs import tail
from server.settings import Settings
from services import Broker, python, wait_until
from sparsify_core.config import RunConfig
from sparsify_core.manifest import verify_checkpoint
from worker import processes
from worker.log_relay import BURST_BYTES, LAST_BYTES, RATE_BYTES_PER_S

pytestmark = pytest.mark.integration

START_S = 180.0
SUPPORT = Path(__file__).parents[1] / "support"


class Deployment:
    """A worker of its own, on a database and a broker that the test may harm."""

    def __init__(self, settings: Settings, sources: dict[str, str]) -> None:
        self.settings = settings
        self.database = Database(settings)
        self._sources = sources
        self._worker: subprocess.Popen[bytes] | None = None

    def start_worker(self, fault: str = "", **variables: str) -> None:
        environment = os.environ | {
            "SPARSEBOARD_DATA_DIR": str(self.settings.data_dir),
            "DATABASE_URL": "",
            "REDIS_URL": self.settings.redis_url,
            "TORCH_TEST_FAULT": fault,
            "PYTHONPATH": os.pathsep.join([str(SUPPORT / "misbehaviour"), os.environ.get("PYTHONPATH", "")]),
        }
        self._worker = subprocess.Popen(python("-m", "worker"), env=environment | variables)

    def config(self, **values: Any) -> dict[str, Any]:
        small = {
            "ctx_len": 8,
            "batch_size": 1,
            "hookpoints": ["layers.0"],
            "sae": {"expansion_factor": 2, "k": 4},
            "optimizer": "adam",
            "lr_warmup_steps": 1,
            "eval_tokens": 0,
        }
        return RunConfig.model_validate(self._sources | small | values).model_dump(mode="json")

    def queue(self, *, num_processes: int = 1, **values: Any) -> str:
        with self.database.write() as session:
            run = Run(name="test", config=self.config(**values), num_processes=num_processes)
            session.add(run)
            return run.id

    def run(self, run_id: str) -> Run:
        with self.database.read() as session:
            return session.get_one(Run, run_id)

    def wait(self, run_id: str, *states: RunState, step: int = 0) -> Run:
        def arrived() -> Run | None:
            run = self.run(run_id)
            assert run.state in states or run.state not in ENDS, (run.state, run.message, run.log_tail)
            return run if run.state in states and run.step >= step else None

        found: Run = wait_until(arrived, timeout_s=START_S, what=f"{states}", every_s=0.1)
        return found

    def worker_row(self) -> Worker | None:
        with self.database.read() as session:
            return session.exec(select(Worker)).first()

    def close(self) -> None:
        if self._worker is not None:
            self._worker.terminate()
            self._worker.wait(timeout=20)
        with self.database.read() as session:
            for run_id in session.exec(select(Run.id)):
                processes.kill_run(run_id, up_to_fence=1000)
        self.database.engine.dispose()


ENDS = (RunState.FAILED, RunState.COMPLETED, RunState.CANCELLED, RunState.PAUSED)


@pytest.fixture
def own_broker() -> Iterator[Broker]:
    with Broker() as running:
        yield running


@pytest.fixture
def deploy(own_broker: Broker, tiny_model: Path, tiny_text: Path) -> Iterator[Callable[[Settings], Deployment]]:
    made = []

    def make(settings: Settings) -> Deployment:
        sources = {"model": str(tiny_model), "dataset": str(tiny_text)}
        made.append(Deployment(settings.model_copy(update={"redis_url": own_broker.url}), sources))
        return made[-1]

    yield make
    for deployment in made:
        deployment.close()


@pytest.fixture
def deployment(deploy: Callable[[Settings], Deployment], sqlite_settings: Settings) -> Deployment:
    return deploy(sqlite_settings)


def test_a_flood_of_output_ends_no_run_and_fills_no_disk(deployment: Deployment) -> None:
    deployment.start_worker("flood")
    started_at = time.monotonic()
    run_id = deployment.queue(max_tokens=160)
    run = deployment.wait(run_id, RunState.COMPLETED)
    run_dir = deployment.settings.run_dir(run_id)
    content = run_dir.log(1).read_bytes()
    allowed = BURST_BYTES + (time.monotonic() - started_at) * RATE_BYTES_PER_S + LAST_BYTES
    assert content.startswith(b"first words\n")
    assert b"[truncated: " in content
    assert BURST_BYTES / 2 < len(content) < allowed
    shown = tail(deployment.settings, run).text
    assert "\x1b" not in shown
    assert "\x00" not in shown


def test_a_run_of_which_a_process_hangs_is_ended_and_tried_again(deployment: Deployment) -> None:
    deployment.start_worker(SPARSEBOARD_STALLED_AFTER_S="4")
    run_id = deployment.queue(num_processes=2, save_every=20)
    deployment.wait(run_id, RunState.RUNNING, step=25)
    ranks = [entry.process for entry in processes.run_processes(run_id) if "--attempt" in entry.process.cmdline()]
    family = [entry.process for entry in processes.run_processes(run_id)]
    max(ranks, key=lambda process: int(process.environ().get("RANK", -1))).send_signal(signal.SIGSTOP)
    run = deployment.wait(run_id, RunState.RETRY_WAIT)
    assert (run.reason_code, run.failures, run.losses) == ("stalled", 1, 0)
    assert "made no step for" in run.message
    _, alive = psutil.wait_procs(family, timeout=10)
    assert alive == []
    with deployment.database.write() as session:
        request_cancel(session, run_id, actor="test")


def test_a_full_disk_pauses_a_run_that_goes_on_when_there_is_room(deployment: Deployment, full_disk: FullDisk) -> None:
    (full_disk.root / "runs").mkdir()
    (deployment.settings.data_dir / "runs").symlink_to(full_disk.root / "runs")
    deployment.start_worker()
    run_id = deployment.queue(save_every=20)
    deployment.wait(run_id, RunState.RUNNING, step=21)
    full_disk.fill()
    run = deployment.wait(run_id, RunState.PAUSED)
    assert run.reason_code == "disk_full"
    run_dir = deployment.settings.run_dir(run_id)
    saved = run_dir.published()
    assert saved
    for checkpoint in saved:
        verify_checkpoint(checkpoint)
    assert list(run_dir.checkpoints.glob(".tmp-*")) == []
    full_disk.free()
    with deployment.database.write() as session:
        resume(session, run_id, actor="test")
    deployment.wait(run_id, RunState.RUNNING, step=saved[-1].step + 20)
    with deployment.database.read() as session:
        assert session.get_one(Attempt, (run_id, 2)).resumed_step == saved[-1].step
    assert (deployment.run(run_id).failures, deployment.run(run_id).losses) == (0, 0)


def test_a_loss_that_is_not_a_number_rolls_back_once(deployment: Deployment, tmp_path: Path) -> None:
    deployment.start_worker(f"nan:{tmp_path / 'mark'}")
    run_id = deployment.queue(max_tokens=96, save_every=5, nan_policy="rollback")
    run = deployment.wait(run_id, RunState.COMPLETED)
    assert (run.fence, run.step, run.failures) == (2, 12, 0)  # the second try is on a budget of its own
    with deployment.database.read() as session:
        assert session.get_one(Attempt, (run_id, 1)).reason_code == "non_finite_loss"
        assert session.get_one(Attempt, (run_id, 2)).resumed_step == 5
        moves = list(session.exec(select(RunEvent.kind).where(RunEvent.run_id == run_id).order_by(col(RunEvent.id))))
    assert moves.count(RunState.RETRY_WAIT) == 1


def test_runs_that_all_die_at_their_start_pause_the_queue(deployment: Deployment) -> None:
    deployment.start_worker("die")
    run_ids = [deployment.queue() for _ in range(4)]

    def paused() -> QueueState | None:
        with deployment.database.read() as session:
            state = session.exec(select(QueueState)).one()
        return state if state.paused else None

    state: QueueState = wait_until(paused, timeout_s=START_S, what="the queue to be paused")
    assert "3 attempts in a row, of 3 runs" in state.reason
    time.sleep(6)  # a tick
    assert [deployment.run(run_id).state for run_id in run_ids] == [*[RunState.FAILED] * 3, RunState.QUEUED]
    assert "died within a minute" in deployment.run(run_ids[3]).waits_for


def test_a_broker_that_goes_and_comes_back_is_not_missed(deployment: Deployment, own_broker: Broker) -> None:
    deployment.start_worker()
    wait_until(deployment.worker_row, timeout_s=START_S, what="the worker")
    with serve(create_app(deployment.settings)) as api:
        own_broker.stop()
        asked_at = time.monotonic()
        answer = api.post("/api/v1/runs", json={"config": deployment.config(model="owner/model", dataset="owner/data")})
        assert answer.status_code == 201, answer.text
        assert time.monotonic() - asked_at < 2
        run_id = answer.json()["id"]
        wait_until(lambda: deployment.run(run_id).state in (*ACTIVE, *ENDS), timeout_s=START_S, what="the start")
        api.post(f"/api/v1/runs/{run_id}/cancel")
        own_broker.start()
        back_at = time.time()

        def has_consumed() -> bool:
            row = deployment.worker_row()
            return row is not None and (row.consumed_at or 0) > back_at

        wait_until(has_consumed, timeout_s=START_S, what="the worker to take messages again")
