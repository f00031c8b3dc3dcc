"""MLflow's tracking server, for the same work: installed into an environment that is thrown away."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2 as httpx

from benchmarks.web_server import free_port, running

VERSION = "3.17.2"
BATCH = 1000
"""Most values that MLflow takes in one request."""
CHART = "/ajax-api/2.0/mlflow/metrics/get-history-bulk-interval"
"""What the charts of its pages ask: some of the points, evenly over the steps."""


@contextmanager
def mlflow(folder: Path) -> Iterator[httpx.Client]:
    """A server of one process on SQLite. Raises CalledProcessError when it cannot be installed."""
    environment = folder / "mlflow"
    subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    subprocess.run([environment / "bin" / "pip", "install", "-q", f"mlflow=={VERSION}"], check=True)
    port = free_port()
    store = f"sqlite:///{folder / 'mlflow.db'}"
    command = [str(environment / "bin" / "mlflow"), "server", "--backend-store-uri", store, "--workers", "1"]
    options = ["--port", str(port), "--uvicorn-opts", "--log-level=warning"]
    with running([*command, *options], {}, f"http://127.0.0.1:{port}", "/health") as client:
        yield client


def create_run(client: httpx.Client) -> str:
    answer = client.post("/api/2.0/mlflow/runs/create", json={"experiment_id": "0", "start_time": 1})
    answer.raise_for_status()
    return str(answer.json()["run"]["info"]["run_id"])


def log(client: httpx.Client, run_id: str, values: list[tuple[str, int, float]]) -> float:
    """Send values as (key, step, value), `BATCH` a request. Returns the seconds that it took."""
    before = time.perf_counter()
    for start in range(0, len(values), BATCH):
        metrics = [
            {"key": key, "step": step, "value": value, "timestamp": step}
            for key, step, value in values[start : start + BATCH]
        ]
        answer = client.post("/api/2.0/mlflow/runs/log-batch", json={"run_id": run_id, "metrics": metrics})
        answer.raise_for_status()
    return time.perf_counter() - before
