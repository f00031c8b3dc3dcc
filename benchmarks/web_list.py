"""The list of runs over HTTP from a real server process: as REST and as the page, alone and with many clients.

    python -m benchmarks.web_list --mlflow

On SQLite in a temporary folder, or on the database that DATABASE_URL names, which must be migrated. MLflow lists
`--mlflow_runs` runs, which it takes long to make.
"""

import argparse
import os
import random
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2 as httpx

from benchmarks import mlflow_peer
from benchmarks.tables import Table, table
from benchmarks.web_server import get_ms, percentiles, serving
from server.db.migrate import upgrade
from server.db.session import Database
from server.db.tables import Run, RunState
from server.settings import Settings
from sparsify_core.config import RunConfig
from sparsify_core.config.sae import SparseCoderConfig

LIST_MS = 30
REQUESTS_PER_S = 100
CLIENTS = 8
LISTS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("newest", "/api/v1/runs", {}),
    ("newest, page", "/runs", {}),
    ("by FVU", "/api/v1/runs", {"sort": "fvu"}),
    ("k>32 fvu<0.2", "/api/v1/runs", {"q": "k>32 fvu<0.2"}),
    ("free text", "/api/v1/runs", {"q": "fox"}),
)
"""What is measured: its name, address and query."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=10.0, help=f"for which {CLIENTS} clients ask")
    parser.add_argument("--mlflow_runs", type=int, default=1000)
    parser.add_argument("--mlflow", action="store_true", help="measure MLflow too: installs it, a few minutes")
    args = parser.parse_args()
    columns = ["what", "runs", "ms", "requests/s", "goal"]
    with table("The list of runs", columns) as rows, tempfile.TemporaryDirectory() as folder:
        settings = Settings(data_dir=Path(folder), database_url=os.environ.get("DATABASE_URL", ""))
        upgrade(settings)
        database = Database(settings)
        fill(database, args.runs)
        with serving(settings, database) as client:
            for what, path, params in LISTS:
                ms, _ = get_ms(client, path, params, repeats=args.repeats)
                rows.add(what, f"{args.runs:,}", ms, "", f"p95 {LIST_MS} ms")
            add_crowd(rows, client, args.runs, args.seconds)
        database.engine.dispose()
        if args.mlflow:
            measure_mlflow(rows, Path(folder), args.mlflow_runs, args.repeats)


def fill(database: Database, number: int) -> None:
    """Completed runs of many kinds."""
    chance = random.Random(0)
    for start in range(0, number, 500):
        with database.write() as session:
            for n in range(start, min(start + 500, number)):
                coder = SparseCoderConfig(k=chance.choice([16, 32, 64, 128]))
                config = RunConfig(model=f"owner/model-{n % 7}", dataset="owner/data", sae=coder)
                run = Run(name=f"{chance.choice(['fox', 'owl', 'elk'])} {n}", config=config.model_dump(mode="json"))
                run.state, run.created_at = RunState.COMPLETED, 1e9 + n
                run.latest = {"fvu/layers.5": chance.random(), "eval_fvu/layers.5": chance.random(), "lr": 1e-3}
                session.add(run)


def add_crowd(rows: Table, client: httpx.Client, number: int, seconds: float) -> None:
    """`CLIENTS` at once, each asking again as soon as it is answered."""
    address, headers = str(client.base_url), dict(client.headers)

    def ask(_: int) -> list[float]:
        times = []
        until = time.monotonic() + seconds
        with httpx.Client(base_url=address, headers=headers, timeout=60) as own:
            while time.monotonic() < until:
                before = time.perf_counter()
                own.get("/api/v1/runs").raise_for_status()
                times.append(1e3 * (time.perf_counter() - before))
        return times

    with ThreadPoolExecutor(CLIENTS) as pool:
        times = [ms for one in pool.map(ask, range(CLIENTS)) for ms in one]
    rate = len(times) / seconds
    rows.add(f"newest, {CLIENTS} clients", f"{number:,}", percentiles(times), f"{rate:.0f}", f"{REQUESTS_PER_S}/s")


def measure_mlflow(rows: Table, folder: Path, number: int, repeats: int) -> None:
    with mlflow_peer.mlflow(folder) as client:
        for _ in range(number):
            mlflow_peer.log(client, mlflow_peer.create_run(client), [("fvu", 1, 0.2), ("eval_fvu", 1, 0.2)])
        times = []
        for _ in range(repeats):
            before = time.perf_counter()
            client.post(
                "/api/2.0/mlflow/runs/search", json={"experiment_ids": ["0"], "max_results": 50}
            ).raise_for_status()
            times.append(1e3 * (time.perf_counter() - before))
    rows.add(f"newest, MLflow {mlflow_peer.VERSION}", f"{number:,}", percentiles(times), "", "")


if __name__ == "__main__":
    main()
