"""The processes of `sparseboard up`, in the order in which they start and stop."""

import contextlib
import json
import os
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from server.launch.broker import EmbeddedBroker
from server.launch.child import Child
from server.launch.drain import drain
from server.launch.errors import LaunchError
from server.launch.pushes import end_pushes
from server.launch.stop import StopRequest
from server.settings import Settings

POLL_S = 0.5
_READY_TIMEOUT_S = 60.0
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""Our own server is never reached through a proxy."""


class Tree:
    """Broker, server, worker."""

    def __init__(self, settings: Settings, *, url: str, with_worker: bool) -> None:
        self._settings = settings
        self._url = url
        logs = self._logs = settings.data_dir / "logs"
        self._broker = None if settings.redis_url else EmbeddedBroker(settings.data_dir, logs / "broker.log")
        self.broker_url = self._broker.url if self._broker else settings.redis_url
        environment = os.environ | {
            "SPARSEBOARD_DATA_DIR": str(settings.data_dir),
            "DATABASE_URL": settings.database_url,
            "SPARSEBOARD_HOST": settings.host,
            "SPARSEBOARD_PORT": str(settings.port),
            "SPARSEBOARD_ALLOWED_HOSTS": json.dumps([*settings.allowed_hosts, settings.host]),
            "REDIS_URL": self.broker_url,
        }
        self._server = Child("server", server_command(settings), log=logs / "server.log", environment=environment)
        self._worker = worker_child(logs / "worker.log", environment) if with_worker else None

    @property
    def children(self) -> list[Child]:
        broker = [self._broker.child] if self._broker else []
        return [*broker, self._server, *([self._worker] if self._worker else [])]

    def describe(self) -> list[dict[str, Any]]:
        """Enough to recognize the children after a crash of this process."""
        return [{"pid": child.pid, "command": child.command} for child in self.children if child.pid]

    def start(self, stop: StopRequest) -> None:
        """Start everything and wait until the server answers. Raises LaunchError when something keeps dying."""
        if self._broker:
            self._broker.child.start()
            self._wait(self._broker.is_ready, "broker", stop, every_s=0.02)
        self._server.start()
        if self._worker:
            self._worker.start()
        self._wait(self._is_serving, "server", stop, every_s=0.1)

    def look_after(self) -> list[str]:
        """Restart what has died. Returns the names of those."""
        return [child.name for child in self.children if child.look_after()]

    def stop(self, stop: StopRequest, say: Callable[[str], None]) -> None:
        """The worker first, so that nothing is claimed any more; then training; then the rest, uploads at last."""
        if self._worker:
            self._worker.stop()
            drain(self._settings, say, stop.is_impatient)
        for child in self.children:
            child.ask_to_stop()
        for child in reversed(self.children):
            child.stop()
        end_pushes(self._settings)
        if self._broker:
            self._broker.clean_up()

    def _wait(self, is_ready: Callable[[], bool], what: str, stop: StopRequest, *, every_s: float) -> None:
        deadline = time.monotonic() + _READY_TIMEOUT_S
        while not is_ready():
            stop.check()
            self.look_after()
            if time.monotonic() > deadline:
                raise LaunchError(f"the {what} did not answer within {_READY_TIMEOUT_S:.0f} s: see {self._logs}")
            time.sleep(every_s)

    def _is_serving(self) -> bool:
        try:
            with _DIRECT.open(f"{self._url}/healthz", timeout=2) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False


def server_command(settings: Settings) -> list[str]:
    """The web server's command line. Streams are cut after two seconds at a stop."""
    return [
        *(sys.executable, "-m", "uvicorn", "--factory", "server.app:create_app"),
        *("--host", settings.host, "--port", str(settings.port)),
        *("--no-access-log", "--no-server-header", "--log-level", "info", "--timeout-graceful-shutdown", "2"),
    ]


def worker_child(log: Path | None, environment: dict[str, str]) -> Child:
    return Child("worker", [sys.executable, "-m", "worker"], log=log, environment=environment)


def end_left_behind(children: list[dict[str, Any]]) -> None:
    """End what a killed `sparseboard up` left running, recognized by process id and command line."""
    found = []
    for entry in children:
        with contextlib.suppress(psutil.Error, KeyError, TypeError):
            process = psutil.Process(entry["pid"])
            if process.cmdline() == entry["command"]:
                process.terminate()
                found.append(process)
    _, alive = psutil.wait_procs(found, timeout=5)
    for process in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
