"""A real server process on a free port, a client of it, and what its answers take."""

import math
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import httpx2 as httpx

from server.db.session import Database
from server.services.tokens import create_token
from server.settings import Settings

START_S = 120.0


class Percentiles(NamedTuple):
    """Of repeated measurements."""

    p50: float
    p95: float

    def __str__(self) -> str:
        return f"{self.p50:.1f} (p95 {self.p95:.1f})"


def percentiles(values: Sequence[float]) -> Percentiles:
    ordered = sorted(values)
    return Percentiles(*(ordered[math.ceil(share * len(ordered)) - 1] for share in (0.5, 0.95)))


@contextmanager
def serving(settings: Settings, database: Database) -> Iterator[httpx.Client]:
    """Sparseboard's server on this database; yields a client with a token."""
    with database.write() as session:
        token = create_token(session, "benchmark")[1]
    port = free_port()
    command = ["-m", "uvicorn", "--factory", "server.app:create_app", "--port", str(port), "--log-level", "warning"]
    environment = {
        "SPARSEBOARD_DATA_DIR": str(settings.data_dir),
        "DATABASE_URL": settings.database_url,
        "REDIS_URL": settings.redis_url,
    }
    with running([sys.executable, *command], environment, f"http://127.0.0.1:{port}", "/healthz") as client:
        client.headers["Authorization"] = f"Bearer {token}"
        yield client


@contextmanager
def running(command: Sequence[str], environment: dict[str, str], address: str, probe: str) -> Iterator[httpx.Client]:
    """A server until the block ends; it is there when it answers `probe`."""
    process = subprocess.Popen(command, env=os.environ | environment, start_new_session=True)
    try:
        with httpx.Client(base_url=address, timeout=600) as client:
            _wait(client, process, probe)
            yield client
    finally:
        process.terminate()
        process.wait(30)


def _wait(client: httpx.Client, process: subprocess.Popen[bytes], probe: str) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if client.get(probe).status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.1)
    raise RuntimeError(f"{process.args} does not answer at {client.base_url}")


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def get_ms(
    client: httpx.Client, path: str, params: dict[str, Any], *, repeats: int
) -> tuple[Percentiles, httpx.Response]:
    """Milliseconds until the whole answer is there, and the last answer; the first request does not count."""
    times = []
    for _ in range(repeats + 1):
        before = time.perf_counter()
        answer = client.get(path, params=params)
        times.append(1e3 * (time.perf_counter() - before))
        answer.raise_for_status()
    return percentiles(times[1:]), answer
