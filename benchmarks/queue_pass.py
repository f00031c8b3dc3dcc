"""One scheduling pass over a long queue: the decision alone, and with the database around it.

    python -m benchmarks.queue_pass --queued 1000 --workers 50

On SQLite in a temporary folder, or on the database that DATABASE_URL names, which must be migrated and empty.
"""

import argparse
import os
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from sqlmodel import select

from benchmarks.tables import table
from benchmarks.timing import spread
from server.db.migrate import upgrade
from server.db.placing import place_queued
from server.db.session import Database
from server.db.tables import DeviceLease, Run, RunState, Worker
from server.db.workers import held_devices, resources_of, worker_views
from server.queue import PROTOCOL
from server.scheduling import GB, DeviceKind, QueuedRun, RunningRun, schedule
from server.settings import Settings

GOAL_MS = 50
NUM_GPUS = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queued", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=15)
    args = parser.parse_args()
    columns = ["queued", "workers", "GPUs taken", "what", "ms", "started", "goal ms"]
    with table("A scheduling pass", columns) as rows, tempfile.TemporaryDirectory() as folder:
        settings = Settings(data_dir=Path(folder), database_url=os.environ.get("DATABASE_URL", ""))
        upgrade(settings)
        database = Database(settings)
        fill(database, queued=args.queued, workers=args.workers)
        for taken in ("half", "all"):
            take(database, 0.5 if taken == "half" else 1.0)
            for what, measure in (("decision", decide), ("first pass", first_pass), ("later pass", later_pass)):
                times, started = zip(*(measure(database) for _ in range(args.rounds)), strict=True)
                rows.add(args.queued, args.workers, taken, what, spread(times), started[0], GOAL_MS)
        database.engine.dispose()


def fill(database: Database, *, queued: int, workers: int) -> None:
    """Workers of eight GPUs, and a queue of runs of many sizes."""
    chance = random.Random(0)
    with database.write() as session:
        for number in range(workers):
            memory = chance.choice([24, 80]) * GB
            gpus = [
                {"index": i, "name": "GPU", "memory_bytes": memory, "uuid": f"{number}/{i}"} for i in range(NUM_GPUS)
            ]
            name = f"worker-{number}"
            labels = chance.sample(["a100", "lab"], chance.randint(0, 2))
            session.add(Worker(name=name, host=name, pid=1, devices=gpus, labels=labels, protocol=PROTOCOL))
        for number in range(queued):
            session.add(
                Run(
                    name=f"run-{number}",
                    config={"device": "auto"},
                    num_processes=chance.choice([1, 1, 2, 4, 8]),
                    num_nodes=chance.choice([1, 1, 1, 2]),
                    min_memory_bytes=chance.choice([None, 24 * GB, 80 * GB]),
                    priority=chance.randint(0, 2),
                )
            )


def take(database: Database, share: float) -> None:
    """Lease this share of the GPUs to runs that train."""
    chance = random.Random(1)
    with database.write() as session:
        for worker in worker_views(session):
            run = Run(name=f"on-{worker.name}", config={}, state=RunState.RUNNING, fence=1, attempt=1)
            run.total_steps, run.tokens_per_step, run.latest = 1000, 1000, {"tokens_per_s": chance.uniform(10, 1000)}
            session.add(run)
            session.flush()
            held = {(one.worker_id, one.index) for one in held_devices(session)}
            for gpu in worker.gpus:
                if (worker.id, gpu.index) not in held and chance.random() < share:
                    place = {"worker_id": worker.id, "kind": DeviceKind.GPU, "index": gpu.index}
                    session.add(DeviceLease(**place, run_id=run.id, attempt=1))


def decide(database: Database) -> tuple[float, int]:
    """Milliseconds of the decision, and how many runs it starts."""
    with database.read() as session:
        views, held = worker_views(session), held_devices(session)
        rows = session.exec(select(Run).where(Run.state == RunState.QUEUED)).all()
    queued = [QueuedRun(run.id, run.name, resources_of(run), run.priority, run.rank) for run in rows]
    running = {one.run_id: RunningRun("run") for one in held}
    return timed(lambda: len(schedule(queued, views, held, running).placements))


class _UndoError(Exception):
    """Rolls a pass back, so that the next one finds the same."""


def first_pass(database: Database) -> tuple[float, int]:
    """Milliseconds of a pass that explains everything for the first time, and how many runs it starts; undone."""
    return _undone(database, 1)


def later_pass(database: Database) -> tuple[float, int]:
    """The same of the pass behind it, when nothing has changed."""
    return _undone(database, 2)


def _undone(database: Database, passes: int) -> tuple[float, int]:
    result = (0.0, 0)
    try:
        with database.write() as session:
            for _ in range(passes):
                result = timed(lambda: len(place_queued(session, actor="benchmark", now=time.time())))
                session.flush()
            raise _UndoError
    except _UndoError:
        return result


def timed(action: Callable[[], int]) -> tuple[float, int]:
    """Milliseconds that an action takes, and its answer."""
    before = time.perf_counter()
    answer = action()
    return 1e3 * (time.perf_counter() - before), answer


if __name__ == "__main__":
    main()
