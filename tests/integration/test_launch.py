"""`sparseboard up`: one tree, one clear sentence for what is wrong, nothing left behind."""

import json
import os
import re
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from services import python, wait_until

pytestmark = pytest.mark.integration

START_S = 60.0


class Launched:
    """A running `sparseboard up` and what it has printed so far."""

    def __init__(self, data_dir: Path, *options: str) -> None:
        self._output = data_dir.with_name(f"{data_dir.name}-{time.monotonic_ns()}.out")
        self._options = options
        environment = {name: value for name, value in os.environ.items() if name not in ("DATABASE_URL", "REDIS_URL")}
        command = python("-m", "server.cli", "up", "--data-dir", str(data_dir), "--port", "0", *options)
        with self._output.open("w") as output:
            self.process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment)

    @property
    def text(self) -> str:
        return self._output.read_text()

    def wait_for(self, pattern: str, timeout_s: float = START_S) -> re.Match[str]:
        def look() -> re.Match[str] | None:
            found = re.search(pattern, self.text)
            assert found or self.process.poll() is None, self.text
            return found

        found: re.Match[str] = wait_until(look, timeout_s=timeout_s, what=f"{pattern!r} in the terminal")
        return found

    def wait_url(self) -> str:
        return self.wait_for(r"(http://\S+)/login#code=(\S+)").group(1)

    def family(self) -> list[psutil.Process]:
        process = psutil.Process(self.process.pid)
        return [process, *process.children(recursive=True)]


@pytest.fixture
def launch() -> Iterator[Callable[..., Launched]]:
    started: list[Launched] = []

    def start(data_dir: Path, *options: str) -> Launched:
        started.append(Launched(data_dir, *options))
        return started[-1]

    yield start
    for launched in started:
        if launched.process.poll() is None:
            launched.process.terminate()
            launched.process.wait(timeout=60)


def sparseboard(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        python("-m", "server.cli", *arguments),
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | environment,
    )


def assert_one_sentence(done: subprocess.CompletedProcess[str], *parts: str) -> None:
    assert done.returncode == 1
    assert done.stderr.startswith("sparseboard: ")
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    for part in parts:
        assert part in done.stderr


def test_it_starts_refuses_a_second_one_and_leaves_nothing(launch: Callable[..., Launched], tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    launched = launch(data_dir)
    url = launched.wait_url()
    with urllib.request.urlopen(f"{url}/healthz", timeout=5) as answer:
        assert answer.status == 200
    family = launched.family()
    assert len(family) == 4  # launcher, broker, server, worker

    assert_one_sentence(
        sparseboard("up", "--data-dir", str(data_dir), "--port", "0"), str(launched.process.pid), url, "--data-dir"
    )
    port = url.rpartition(":")[2]
    other = sparseboard("up", "--data-dir", str(tmp_path / "other"), "--port", port)
    assert_one_sentence(other, f"port {port}", f"--port {int(port) + 1}")
    login = sparseboard("login", "--data-dir", str(data_dir))
    assert re.fullmatch(re.escape(url) + r"/login#code=\S+\n", login.stdout)

    broker_socket = broker_of(family)
    assert broker_socket.stat().st_mode & 0o777 == 0o600
    assert all("REDIS" not in part and "secret" not in part for process in family for part in process.cmdline())

    launched.process.send_signal(signal.SIGINT)
    assert launched.process.wait(timeout=20) == 0
    _, alive = psutil.wait_procs(family, timeout=1)
    assert alive == []
    assert not broker_socket.parent.exists()


def broker_of(family: list[psutil.Process]) -> Path:
    broker = next(process for process in family if "valkey" in process.name())
    paths = [Path(connection.laddr) for connection in broker.net_connections("unix") if connection.laddr]
    return next(path for path in paths if path.name == "broker.sock")


def test_a_killed_child_is_started_again_and_a_killed_launcher_leaves_nothing_that_hinders(
    launch: Callable[..., Launched], tmp_path: Path
) -> None:
    data_dir = tmp_path / "data"
    first = launch(data_dir)
    url = first.wait_url()
    server = next(process for process in first.family() if "uvicorn" in process.cmdline())
    server.kill()
    first.wait_for("the server had ended and was started again")

    def answers() -> bool:
        try:
            with urllib.request.urlopen(f"{url}/healthz", timeout=2) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    wait_until(answers, timeout_s=START_S, what="the server to answer again")

    family = first.family()
    first.process.kill()
    first.process.wait()
    second = launch(data_dir)
    second.wait_url()
    _, alive = psutil.wait_procs(family, timeout=10)
    assert alive == []


def test_stopping_gives_a_training_run_back_and_the_next_start_continues_it(
    launch: Callable[..., Launched], tmp_path: Path, tiny_model: Path, tiny_text: Path
) -> None:
    from server.db.session import Database
    from server.db.tables import Run, RunState
    from server.settings import Settings
    from sparsify_core.config import RunConfig

    data_dir = tmp_path / "data"
    first = launch(data_dir)
    first.wait_url()
    settings = Settings(data_dir=data_dir, database_url="")
    database = Database(settings)
    config = RunConfig.model_validate(
        {
            "model": str(tiny_model),
            "dataset": str(tiny_text),
            "hookpoints": ["layers.0"],
            "sae": {"expansion_factor": 2, "k": 4},
            "ctx_len": 8,
            "batch_size": 1,
            "eval_tokens": 64,
        }
    )
    with database.write() as session:
        run = Run(name="long", config=config.model_dump(mode="json"))
        session.add(run)
        run_id = run.id

    def state() -> str:
        with database.read() as session:
            return session.get_one(Run, run_id).state

    wait_until(lambda: state() == RunState.RUNNING, timeout_s=90, what="the run to train")
    first.process.send_signal(signal.SIGINT)
    assert first.process.wait(timeout=40) == 0
    assert "stopping 1 run" in first.text
    assert state() == RunState.QUEUED

    second = launch(data_dir)
    second.wait_url()
    wait_until(lambda: state() in (RunState.STARTING, RunState.RUNNING), timeout_s=30, what="the run to start again")
    second.process.terminate()
    assert second.process.wait(timeout=40) == 0
    assert state() == RunState.QUEUED
    database.engine.dispose()


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (("up", "--host", "0.0.0.0"), ("--host 0.0.0.0", "--behind-proxy")),
        (("up", "--data-dir", "/proc/nothing"), ("/proc/nothing", "--data-dir")),
        (("worker",), ("REDIS_URL is not set",)),
        (("login",), ("never started", "sparseboard up")),
    ],
)
def test_what_is_wrong_is_one_sentence(arguments: tuple[str, ...], parts: tuple[str, ...], tmp_path: Path) -> None:
    done = sparseboard(*arguments, SPARSEBOARD_DATA_DIR=str(tmp_path / "data"), REDIS_URL="")
    assert_one_sentence(done, *parts)


def test_a_setting_that_is_no_json_is_one_sentence(tmp_path: Path) -> None:
    done = sparseboard("migrate", "--data-dir", str(tmp_path), SPARSEBOARD_SOURCE_ROOTS="/data")
    assert_one_sentence(done, "source_roots", "JSON")


def test_an_unreachable_database_is_one_sentence(tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"postgresql+psycopg://u:topsecret@127.0.0.1:{unused.getsockname()[1]}/d"
        done = sparseboard("migrate", "--data-dir", str(tmp_path), DATABASE_URL=url)
    assert_one_sentence(done, "DATABASE_URL")
    assert "topsecret" not in done.stderr


def test_a_lock_file_of_a_crash_does_not_hinder(tmp_path: Path) -> None:
    from server.launch.lock import DataFolderLock

    (tmp_path / "sparseboard.lock").write_text(json.dumps({"pid": 1, "url": "http://old", "children": []}))
    lock = DataFolderLock(tmp_path)
    lock.release()
    (tmp_path / "sparseboard.lock").write_text("torn{")
    DataFolderLock(tmp_path).release()


def test_help_and_version_are_instant() -> None:
    started_at = time.process_time()
    before = os.times().children_user
    assert sparseboard("--help").returncode == 0
    assert re.match(r"\d+\.\d+", sparseboard("version").stdout)
    assert os.times().children_user - before + time.process_time() - started_at < 1.5
