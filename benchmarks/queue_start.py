"""From submitting a run to the start of its torchrun, with a free slot and a worker that waits.

    python -m benchmarks.queue_start --demo_dir DEMO

Each run is cancelled as soon as its torchrun is there.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from sqlmodel import select

from benchmarks import demo_run
from benchmarks.tables import table
from benchmarks.timing import spread
from server.db.migrate import upgrade
from server.db.runs import request_cancel
from server.db.session import Database
from server.db.tables import TERMINAL, AttemptNode, Run, Worker
from server.launch.broker import EmbeddedBroker
from server.services.requests import RunRequest
from server.services.runs import create_run
from server.settings import Settings

GOAL_S = 2
_OWNED = ("run_name", "save_dir", "resume")
_POLL_S = 0.01
_TIMEOUT_S = 120.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    demo_run.add_arguments(parser)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    config = {name: value for name, value in demo_run.preset(args).items() if name not in _OWNED}
    with table("From submit to torchrun", ["what", "s", "goal s"]) as rows, tempfile.TemporaryDirectory() as folder:
        settings = Settings(data_dir=Path(folder), database_url="", source_roots=[args.demo_dir.resolve()])
        upgrade(settings)
        with deployment(settings) as (database, served):
            seconds = [start_one(database, served, config) for _ in range(args.rounds)]
        rows.add("submit → torchrun", spread(seconds), GOAL_S)


@contextmanager
def deployment(settings: Settings) -> Iterator[tuple[Database, Settings]]:
    """A broker and a worker that is ready, until the block ends."""
    broker = EmbeddedBroker(settings.data_dir, settings.data_dir / "broker.log")
    served = settings.model_copy(update={"redis_url": broker.url})
    environment = os.environ | {"SPARSEBOARD_DATA_DIR": str(settings.data_dir), "REDIS_URL": broker.url}
    environment.pop("DATABASE_URL", None)
    database = Database(served)
    broker.child.start()
    with (settings.data_dir / "worker.log").open("w") as log:
        worker = subprocess.Popen([sys.executable, "-m", "worker"], env=environment, stdout=log, stderr=log)
    try:
        _wait(lambda: _first(database, Worker), "the worker")
        time.sleep(5)  # until it listens to the broker
        yield database, served
    finally:
        worker.terminate()
        worker.wait()
        broker.child.stop()
        broker.clean_up()
        database.engine.dispose()


def start_one(database: Database, settings: Settings, config: dict[str, Any]) -> float:
    """Seconds from the commit of a run to its torchrun."""
    with database.write() as session:
        run = create_run(session, RunRequest.model_validate({"config": config}), settings=settings, actor="benchmark")
    before = time.perf_counter()
    _wait(lambda: _trains(database, run.id), "torchrun")
    seconds = time.perf_counter() - before
    with database.write() as session:
        request_cancel(session, run.id, actor="benchmark")
    _wait(lambda: _state(database, run.id) in TERMINAL, "the run to end")
    time.sleep(1)  # its last processes leave
    return seconds


def _trains(database: Database, run_id: str) -> bool:
    with database.read() as session:
        node = session.get(AttemptNode, (run_id, 1, 0))
    if node is None or not node.supervisor_pid:
        return False
    try:
        children = psutil.Process(node.supervisor_pid).children()
        return any("torch.distributed.run" in child.cmdline() for child in children)
    except psutil.NoSuchProcess:
        return False


def _state(database: Database, run_id: str) -> str:
    with database.read() as session:
        return session.get_one(Run, run_id).state


def _first(database: Database, table: Any) -> Any:
    with database.read() as session:
        return session.exec(select(table)).first()


def _wait(condition: Any, what: str) -> None:
    deadline = time.monotonic() + _TIMEOUT_S
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit(f"waited {_TIMEOUT_S:.0f} s in vain for {what}")
        time.sleep(_POLL_S)


if __name__ == "__main__":
    main()
