"""Metric points from event files into the database, sealing included: points a second of one process.

    python -m benchmarks.web_ingest --mlflow

On SQLite in a temporary folder, or on the database that DATABASE_URL names, which must be migrated. MLflow gets the
same values over HTTP, a thousand a request, which is how its client sends them at best.
"""

import argparse
import itertools
import json
import os
import random
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from sqlmodel import func, select

from benchmarks import mlflow_peer
from benchmarks.tables import Table, table
from benchmarks.web_server import percentiles
from server.db.migrate import upgrade
from server.db.session import Database
from server.db.tables import Attempt, MetricPoint, Run
from server.settings import Settings
from sparsify_core.events import Metrics
from worker.ingest import ingest

GOAL_PER_S = 50_000
LIVE_EVENTS = 100
KEYS = [f"{name}/layers.{layer}" for name in ("fvu", "dead_frac", "l0") for layer in range(6)] + ["lr", "tokens"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=12_000, help=f"of {len(KEYS)} values each")
    parser.add_argument("--mlflow_steps", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--mlflow", action="store_true", help="measure MLflow too: installs it, a few minutes")
    args = parser.parse_args()
    columns = ["what", "points", "points/s", "goal"]
    with table("Ingest", columns) as rows, tempfile.TemporaryDirectory() as folder:
        for at_once in (LIVE_EVENTS, args.steps):
            measure(rows, Path(folder), steps=args.steps, at_once=at_once, rounds=args.rounds)
        if args.mlflow:
            measure_mlflow(rows, Path(folder), steps=args.mlflow_steps, rounds=args.rounds)


def measure(rows: Table, folder: Path, *, steps: int, at_once: int, rounds: int) -> None:
    """With so many events in the file each time that it is looked at."""
    settings = Settings(data_dir=folder, database_url=os.environ.get("DATABASE_URL", ""))
    upgrade(settings)
    database = Database(settings)
    per_s = []
    for _ in range(rounds):
        run_id = new_run(database)
        per_s.append(steps * len(KEYS) / seconds_of(database, settings, run_id, steps=steps, at_once=at_once))
    with database.read() as session:
        hot = session.exec(select(func.count()).select_from(MetricPoint).where(MetricPoint.run_id == run_id)).one()
    database.engine.dispose()
    what = f"{at_once:,} events at once → {database.engine.dialect.name}, {hot:,} rows left"
    rows.add(what, f"{steps * len(KEYS):,}", slowest(per_s), f"{GOAL_PER_S:,}")


def seconds_of(database: Database, settings: Settings, run_id: str, *, steps: int, at_once: int) -> float:
    """What reading takes; writing the file does not count."""
    logged, spent = values(steps), 0.0
    for _ in range(0, steps, at_once):
        write_events(settings.run_dir(run_id).events(1), itertools.islice(logged, at_once))
        before = time.perf_counter()
        ingest(database, settings.run_dir(run_id), run_id, 1)
        spent += time.perf_counter() - before
    return spent


def measure_mlflow(rows: Table, folder: Path, *, steps: int, rounds: int) -> None:
    sent = [(key, step, value) for step, one in values(steps) for key, value in one.items()]
    with mlflow_peer.mlflow(folder) as client:
        per_s = [len(sent) / mlflow_peer.log(client, mlflow_peer.create_run(client), sent) for _ in range(rounds)]
    rows.add(f"MLflow {mlflow_peer.VERSION}, HTTP", f"{len(sent):,}", slowest(per_s), "")


def slowest(per_s: list[float]) -> str:
    """The median, and what 95 % of the rounds reach."""
    slow = percentiles([-one for one in per_s])
    return f"{-slow.p50:,.0f} (p95 {-slow.p95:,.0f})"


def new_run(database: Database) -> str:
    """A run with an attempt of which nothing has been read."""
    with database.write() as session:
        run = Run(name="benchmark", config={}, fence=1, attempt=1)
        session.add(run)
        session.flush()
        session.add(Attempt(run_id=run.id, attempt=1))
        return run.id


def values(steps: int, keys: Sequence[str] = KEYS) -> Iterator[tuple[int, dict[str, float]]]:
    """What a trainer logs: falling, with noise."""
    chance = random.Random(0)
    for step in range(1, steps + 1):
        yield step, {key: 0.2 + 100 / (step + 100) + chance.gauss(0, 0.01) for key in keys}


def write_events(path: Path, logged: Iterable[tuple[int, dict[str, float]]]) -> None:
    """More of an attempt's event file, as the trainer writes it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        for step, one in logged:
            event = Metrics.model_construct(attempt=1, seq=step, ts=float(step), step=step, values=one)
            file.write(json.dumps(event.model_dump(), separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
