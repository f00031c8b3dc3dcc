"""A whole deployment as real processes: database, broker, web server and Celery worker, whose runs train a tiny model.

Every part can be killed, frozen, stopped and started again. `promises` says what must hold afterwards.
"""

import json
import os
import signal
import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2 as httpx
import psutil
from sqlmodel import Session, col, select

from server.auth import issue_login_code
from server.db.migrate import upgrade
from server.db.runs import requeue
from server.db.session import Database
from server.db.tables import TERMINAL, Attempt, AttemptNode, Intent, Run, RunState
from server.launch.tree import server_command
from server.queue import CLAIM_TASK, QUEUE
from server.services import tokens
from server.settings import Settings
from services import Broker, Cluster, python, wait_until
from sparsify_core.config import RunConfig
from sparsify_core.parent import end_with_parent
from sparsify_core.rundir import RunDir
from worker import processes
from worker.app import make_app

START_S = 300.0
"""Limit of everything that imports torch first: twice at least, on a machine that may be busy."""
CANARY = "hf_canary_8Q2vZr1Wm7Ly"
"""The deployment's secret, which must come out nowhere."""
STEPS = 40
SAVE_EVERY = 10
_SABOTAGE = Path(__file__).with_name("sabotage")

Plan = Mapping[int | str, list[str] | float]
"""What is done to training (sabotage/sitecustomize.py), by the step before which it happens."""


@dataclass(frozen=True)
class Accepted:
    """A run that the server has answered with 201."""

    run_id: str
    is_standard: bool
    """Whether its weights must become those of an undisturbed run."""


@dataclass
class Deployment:
    """One deployment. The web server keeps its port, so that clients find it again."""

    settings: Settings
    broker: Broker
    model: Path
    text: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    cluster: Cluster | None = None
    """PostgreSQL; None: the database is SQLite."""
    accepted: list[Accepted] = field(default_factory=list)
    damaged: set[Path] = field(default_factory=set)
    """Checkpoints that a test has damaged."""
    server: subprocess.Popen[bytes] | None = None
    worker: subprocess.Popen[bytes] | None = None

    def __post_init__(self) -> None:
        self.database = Database(self.settings)
        self.token = self.new_token()
        self.client = self.new_client()

    def new_token(self) -> str:
        with self.database.write() as session:
            return tokens.create_token(session, "faults")[1]

    def new_client(self) -> httpx.Client:
        url = f"http://127.0.0.1:{self.settings.port}"
        return httpx.Client(base_url=url, headers={"Authorization": f"Bearer {self.token}"}, timeout=60)

    def browser(self) -> httpx.Client:
        """A logged-in browser."""
        with self.database.write() as session:
            code = issue_login_code(session)
        client = httpx.Client(base_url=self.client.base_url, timeout=60, follow_redirects=True)
        assert client.post("/login", data={"code": code}).status_code == 200
        return client

    # --- processes

    def _start(self, name: str, command: list[str]) -> subprocess.Popen[bytes]:
        log = self.settings.data_dir / "logs" / f"{name}.log"
        log.parent.mkdir(exist_ok=True)
        path = os.pathsep.join(filter(None, [str(_SABOTAGE), os.environ.get("PYTHONPATH")]))
        environment = os.environ | {
            "SPARSEBOARD_DATA_DIR": str(self.settings.data_dir),
            "SPARSEBOARD_SOURCE_ROOTS": json.dumps([str(self.model.parent), str(self.text.parent)]),
            "DATABASE_URL": self.settings.database_url,
            "REDIS_URL": self.settings.redis_url,
            "HF_TOKEN": CANARY,
            "PYTHONPATH": path,
            **self.environment,
        }
        with log.open("ab") as output:
            return subprocess.Popen(
                command, env=environment, stdout=output, stderr=output, preexec_fn=end_with_parent()
            )

    def start_server(self) -> None:
        if self.server is None or self.server.poll() is not None:
            self.server = self._start("server", server_command(self.settings))
        server = self.server

        def answers() -> bool:
            assert server.poll() is None, "the server ended at its start: its log says why"
            return self.answers()

        wait_until(answers, timeout_s=START_S, what="the server to answer", every_s=0.1)

    def answers(self) -> bool:
        try:
            return self.client.get("/healthz").status_code == 200
        except httpx.TransportError:
            return False

    def start_worker(self) -> None:
        if self.worker is None or self.worker.poll() is not None:
            self.worker = self._start("worker", python("-m", "worker"))

    def kill_server(self) -> None:
        assert self.server is not None
        self.server.kill()
        self.server.wait()

    def kill_worker(self) -> None:
        assert self.worker is not None
        self.worker.kill()
        self.worker.wait()

    def stop_worker(self) -> None:
        """As a service manager stops it."""
        assert self.worker is not None
        self.worker.terminate()
        self.worker.wait(timeout=30)

    def deliver(self, count: int) -> None:
        """Put wake-ups into the queue."""
        app = make_app(self.settings)
        for _ in range(count):
            app.send_task(CLAIM_TASK, queue=QUEUE)

    # --- runs

    @staticmethod
    def body_of(model: Path, text: Path, **changes: Any) -> dict[str, Any]:
        """The request for the standard run: `STEPS` steps, a checkpoint every `SAVE_EVERY`."""
        config = {
            "model": str(model),
            "dataset": str(text),
            "ctx_len": 16,
            "batch_size": 4,
            "max_tokens": 16 * 4 * STEPS,
            "hookpoints": ["layers.0"],
            "sae": {"expansion_factor": 2, "k": 4},
            "optimizer": "adam",
            "lr": 0.01,
            "lr_warmup_steps": 1,
            "eval_tokens": 128,
            "save_every": SAVE_EVERY,
            "keep_last": 3,
            "waterfall_every": 0,
        }
        num_processes = changes.pop("num_processes", 1)
        return {"name": "fault", "num_processes": num_processes, "config": config | changes}

    def submit(self, *, plans: Mapping[int, Plan] | None = None, **changes: Any) -> str:
        """Have the server accept a run, and sabotage its attempts by `plans`."""
        answer = self.client.post("/api/v1/runs", json=self.body_of(self.model, self.text, **changes))
        assert answer.status_code == 201, answer.text
        run_id: str = answer.json()["id"]
        self.accepted.append(Accepted(run_id, is_standard=not changes))
        if plans:
            root = self.run_dir(run_id).root
            root.mkdir(parents=True, exist_ok=True)
            (root / "sabotage.json").write_text(json.dumps(plans))
        return run_id

    def run(self, run_id: str) -> Run:
        with self.database.read() as session:
            return session.get_one(Run, run_id)

    def attempts(self, run_id: str) -> list[Attempt]:
        with self.database.read() as session:
            statement = select(Attempt).where(Attempt.run_id == run_id).order_by(col(Attempt.attempt))
            return list(session.exec(statement))

    def run_dir(self, run_id: str) -> RunDir:
        return self.settings.run_dir(run_id)

    def go(self, run_id: str) -> None:
        """Let a held trainer go on."""
        (self.run_dir(run_id).root / "go").touch()

    def wait_held(self, run_id: str, *, attempt: int = 1) -> None:
        """Until the trainer has come to the step at which it is held, and the database says that it trains."""
        mark = self.run_dir(run_id).root / f"held-{attempt}"

        def is_held() -> bool:
            self.hurry(run_id)
            run = self.run(run_id)
            assert run.state not in TERMINAL, (run.state, run.message, run.log_tail)
            return mark.exists() and run.state == RunState.RUNNING and run.attempt == attempt

        wait_until(is_held, timeout_s=START_S, what=f"attempt {attempt} to be held", every_s=0.1)

    def hurry(self, run_id: str) -> None:
        """End the backoff of a run in retry wait, as a person may."""
        if self.run(run_id).state == RunState.RETRY_WAIT:
            with self.database.write() as session:
                requeue(session, run_id, actor="user")

    def ask(self, request: str, run_id: str) -> str:
        """Have the server `cancel`, `pause`, `resume` or `requeue` a run; returns the state that it answers with."""
        answer = self.client.post(f"/api/v1/runs/{run_id}/{request}")
        assert answer.status_code == 200, answer.text
        return str(answer.json()["state"])

    def wait_state(self, run_id: str, *states: str, timeout_s: float = START_S) -> Run:
        wait_until(
            lambda: self.run(run_id).state in states, timeout_s=timeout_s, what=f"the run to be {states}", every_s=0.1
        )
        return self.run(run_id)

    def wait_end(self, run_id: str) -> Run:
        """Until the run has ended, with all backoffs cut short."""

        def has_ended() -> bool:
            self.hurry(run_id)
            return self.run(run_id).state in TERMINAL

        wait_until(has_ended, timeout_s=START_S, what="the run to end", every_s=0.1)
        return self.run(run_id)

    # --- the processes of a run

    def supervisor(self, run_id: str) -> psutil.Process:
        with self.database.read() as session:
            node = _newest_node(session, run_id)
        return psutil.Process(node.supervisor_pid)

    def torchrun(self, run_id: str) -> psutil.Process:
        return next(p for p in self.supervisor(run_id).children() if "torch.distributed.run" in p.cmdline())

    def ranks(self, run_id: str) -> list[psutil.Process]:
        return [p for p in self.torchrun(run_id).children() if "sparsify_core" in p.cmdline()]

    def family(self, run_id: str) -> list[psutil.Process]:
        """Everything that works for the run."""
        return [entry.process for entry in processes.run_processes(run_id)]

    # --- the end

    def resume_queue(self) -> None:
        """A queue that was paused because too many runs died early moves again, as when a person has looked."""
        assert self.client.post("/api/v1/queue/resume").status_code == 200

    def settle(self, *, cancels: bool = True) -> None:
        """Bring every part up again, and every run to its end: by cancelling it, or by waiting."""
        if self.cluster is not None:
            self.cluster.start()
        self.broker.start()
        self.start_server()
        self.start_worker()
        self.resume_queue()
        for accepted in self.accepted:
            state = self.run(accepted.run_id).state
            if cancels and state not in (*TERMINAL, RunState.PAUSED):
                self.ask("cancel", accepted.run_id)
            if not cancels and (state == RunState.PAUSED or self.run(accepted.run_id).intent == Intent.PAUSE):
                self.ask("resume", accepted.run_id)
        for accepted in self.accepted:
            if self.run(accepted.run_id).state != RunState.PAUSED:
                self.wait_end(accepted.run_id)

    def close(self) -> None:
        for process in (self.worker, self.server):
            if process is not None and process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.terminate()
                process.wait(timeout=30)
        for accepted in self.accepted:
            processes.kill_run(accepted.run_id, up_to_fence=1000)
        self.client.close()
        self.database.engine.dispose()


def _newest_node(session: Session, run_id: str) -> AttemptNode:
    run = session.get_one(Run, run_id)
    return session.get_one(AttemptNode, (run_id, run.attempt, 0))


def train_undisturbed(run_dir: RunDir, model: Path, text: Path) -> RunDir:
    """Train the standard run without Sparseboard around it and without a fault."""
    config = RunConfig.model_validate(Deployment.body_of(model, text)["config"])
    run_dir.root.mkdir(exist_ok=True)
    run_dir.config.write_text(config.model_dump_json())
    torchrun = python("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "1")
    words = [*torchrun, "-m", "sparsify_core", "--config", str(run_dir.config), "--run_dir", str(run_dir.root)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return run_dir


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def deploy(
    engine: str, data_dir: Path, *, template: bytes, model: Path, text: Path, **environment: str
) -> Iterator[Deployment]:
    """A deployment on `sqlite` or `postgres`, in service.

    Args:
        template: a migrated, empty SQLite database.
        environment: further settings of the deployment.
    """
    data_dir.mkdir(exist_ok=True)
    with Broker() as broker:
        settings = Settings(data_dir=data_dir, database_url="", redis_url=broker.url, port=free_port())
        if engine == "sqlite":
            (data_dir / "sparseboard.db").write_bytes(template)
            yield from _serve(Deployment(settings, broker, model, text, environment))
            return
        with Cluster() as cluster:
            settings = settings.model_copy(update={"database_url": cluster.url("postgres")})
            upgrade(settings)
            yield from _serve(Deployment(settings, broker, model, text, environment, cluster))


def _serve(deployment: Deployment) -> Iterator[Deployment]:
    try:
        deployment.start_worker()
        deployment.start_server()
        yield deployment
    finally:
        deployment.close()
