"""The same run under Sparseboard (server, broker, worker, supervisor) and from the bare command line, by turns.

    python -m benchmarks.train_served --steps 40

Throughput is read from each run's events, behind a warm-up. While the bare one runs, nothing of Sparseboard does.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks import demo_run
from benchmarks.goals import GOALS
from benchmarks.sides import step_ends
from benchmarks.tables import judged, table
from benchmarks.timing import Windows, spread
from server.db.session import Database
from server.db.tables import TERMINAL, Run, RunState
from server.services.requests import RunRequest
from server.services.runs import create_run
from server.settings import Settings
from sparsify_core.rundir import RunDir

_COLUMNS = ["workload", "mode", "bare: tok/s", "served: tok/s", "bare ms", "served ms", "times", "must", "aim", "floor"]
_OWNED = ("run_name", "save_dir", "resume")
_START_S, _POLL_S = 120, 0.5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    demo_run.add_arguments(parser)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=40)
    args = parser.parse_args()
    config = demo_run.preset(args)
    tokens_per_step = config["batch_size"] * config["ctx_len"]
    config["max_tokens"] = args.steps * tokens_per_step
    windows = Windows(max(1, args.steps // 8), max(1, args.steps // 8))
    ms: dict[str, list[float]] = {"bare": [], "served": []}
    with table("Under Sparseboard", _COLUMNS) as rows:
        for number in range(1, args.rounds + 1):
            for how, run in (("bare", run_bare), ("served", run_served)):
                with tempfile.TemporaryDirectory() as folder:
                    own = windows.milliseconds(step_ends(run(config, Path(folder), args.demo_dir)))
                ms[how] += own
                print(f"  round {number}  {how}: {spread(own)} ms", flush=True)
        bare, served = spread(ms["bare"]), spread(ms["served"])
        rates = (f"{tokens_per_step / side.median * 1e3:,.0f}" for side in (bare, served))
        rows.add("demo", "served", *rates, bare, served, *judged(bare.median / served.median, GOALS["demo", "served"]))


def run_bare(config: dict[str, Any], folder: Path, _demo_dir: Path) -> RunDir:
    """`python -m sparsify_core` alone."""
    file, run_dir = folder / "config.json", RunDir(folder / "run")
    file.write_text(json.dumps(config), encoding="utf-8")
    command = [sys.executable, "-m", "sparsify_core", "--config", str(file), "--run_dir", str(run_dir.root)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"the bare run failed:\n{done.stderr}")
    return run_dir


def run_served(config: dict[str, Any], folder: Path, demo_dir: Path) -> RunDir:
    """Queue the run in a fresh deployment, as `sparseboard up` starts it, and wait for its end."""
    settings = Settings(data_dir=folder / "data", database_url="", source_roots=[demo_dir.resolve()])
    request = {"config": {name: value for name, value in config.items() if name not in _OWNED}}
    with deployment(settings):
        database = Database(settings)
        with database.write() as session:
            request_model = RunRequest.model_validate(request)
            run_id = create_run(session, request_model, settings=settings, actor="benchmark").id
        wait(database, run_id)
        database.engine.dispose()
    return settings.run_dir(run_id)


@contextmanager
def deployment(settings: Settings) -> Iterator[None]:
    """`sparseboard up` on SQLite and the broker that it brings along, until the block ends."""
    environment = {name: value for name, value in os.environ.items() if name not in ("DATABASE_URL", "REDIS_URL")}
    log = settings.data_dir.with_suffix(".log")
    command = [sys.executable, "-m", "server.cli", "up", "--data-dir", str(settings.data_dir), "--port", "0"]
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment)
    try:
        deadline = time.monotonic() + _START_S
        while "Sparseboard is ready" not in log.read_text():
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"Sparseboard did not start:\n{log.read_text()}")
            time.sleep(_POLL_S)
        yield
    finally:
        process.terminate()
        process.wait()


def wait(database: Database, run_id: str) -> None:
    """Until the run has ended; leaves the benchmark when it did not complete."""
    while True:
        with database.read() as session:
            run = session.get(Run, run_id)
        if run is not None and run.state in TERMINAL:
            break
        time.sleep(_POLL_S)
    if run.state != RunState.COMPLETED:
        raise SystemExit(f"the served run ended {run.state}: {run.message}")


if __name__ == "__main__":
    main()
