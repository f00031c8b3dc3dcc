"""Charts over HTTP from a real server process: a long series, a part of it, and many runs in one chart.

    python -m benchmarks.web_series --mlflow

On SQLite in a temporary folder, or on the database that DATABASE_URL names, which must be migrated. The run is read
from an event file, as a worker does while it goes on, so that its newest points are rows; the other runs are copies.
MLflow answers what its own charts ask for, from a series of `--mlflow_points`.
"""

import argparse
import itertools
import os
import tempfile
from pathlib import Path

import httpx2 as httpx
from sqlalchemy import Table as SqlTable
from sqlalchemy import insert, literal, select
from sqlmodel import SQLModel

from benchmarks import mlflow_peer
from benchmarks.tables import Table, table
from benchmarks.web_ingest import new_run, values, write_events
from benchmarks.web_server import get_ms, serving
from server.db.migrate import upgrade
from server.db.session import Database
from server.settings import Settings
from worker.ingest import ingest

KEY = "fvu/layers.5"
BUCKETS = 1500
HOT = 1000
"""Points that are rows still: the worker seals 1,024."""
OPEN_MS, OVERLAY_MS = 40, 600


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=1_000_000)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=40)
    parser.add_argument("--mlflow_points", type=int, default=100_000)
    parser.add_argument("--mlflow", action="store_true", help="measure MLflow too: installs it, a few minutes")
    args = parser.parse_args()
    columns = ["what", "points", "ms", "kB", "goal (p95), ms"]
    with table("Charts", columns) as rows, tempfile.TemporaryDirectory() as folder:
        settings = Settings(data_dir=Path(folder), database_url=os.environ.get("DATABASE_URL", ""))
        upgrade(settings)
        database = Database(settings)
        run_ids = fill(settings, database, points=args.points, runs=args.runs)
        with serving(settings, database) as client:
            measure(rows, client, run_ids, points=args.points, repeats=args.repeats)
        database.engine.dispose()
        if args.mlflow:
            measure_mlflow(rows, Path(folder), points=args.mlflow_points, repeats=args.repeats)


def fill(settings: Settings, database: Database, *, points: int, runs: int) -> list[str]:
    """Runs with one series each, of so many points."""
    first, *others = run_ids = [new_run(database) for _ in range(runs)]
    logged = values(points, [KEY])
    for part in (points - HOT, *[500] * (HOT // 500)):
        write_events(settings.run_dir(first).events(1), itertools.islice(logged, part))
        ingest(database, settings.run_dir(first), first, 1)
    for run_id, name in itertools.product(others, ("metric_chunk", "metric_point")):
        copy(database, SQLModel.metadata.tables[name], first, run_id)
    return run_ids


def copy(database: Database, rows: SqlTable, source: str, target: str) -> None:
    """All that a table has of one run, for another one too."""
    columns = [literal(target) if column.name == "run_id" else column for column in rows.columns]
    copied = select(*columns).where(rows.columns.run_id == source)
    with database.write() as session:
        session.execute(insert(rows).from_select([column.name for column in rows.columns], copied))


def measure(rows: Table, client: httpx.Client, run_ids: list[str], *, points: int, repeats: int) -> None:
    path, asked = f"/api/v1/runs/{run_ids[0]}/metrics", {"key": KEY, "max_points": BUCKETS}
    tenth = {"start": points // 2, "end": points // 2 + points // 10}
    for what, params in (("open", {}), ("a tenth of it", tenth), ("1,000 points of it", {"start": 1000, "end": 1999})):
        ms, answer = get_ms(client, path, asked | params, repeats=repeats)
        rows.add(what, f"{points:,}", ms, f"{len(answer.content) / 1e3:.0f}", OPEN_MS)
    ms, answer = get_ms(client, "/api/v1/metrics", asked | {"run": run_ids}, repeats=max(repeats // 4, 5))
    rows.add("overlay", f"{len(run_ids)} × {points:,}", ms, f"{len(answer.content) / 1e3:.0f}", OVERLAY_MS)


def measure_mlflow(rows: Table, folder: Path, *, points: int, repeats: int) -> None:
    with mlflow_peer.mlflow(folder) as client:
        run_id = mlflow_peer.create_run(client)
        mlflow_peer.log(client, run_id, [(KEY, step, one[KEY]) for step, one in values(points, [KEY])])
        asked = {"run_ids": run_id, "metric_key": KEY, "max_results": BUCKETS}
        ms, answer = get_ms(client, mlflow_peer.CHART, asked, repeats=max(repeats // 4, 5))
    rows.add(f"open, MLflow {mlflow_peer.VERSION}", f"{points:,}", ms, f"{len(answer.content) / 1e3:.0f}", "")


if __name__ == "__main__":
    main()
