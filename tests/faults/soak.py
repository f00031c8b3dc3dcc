"""`make soak SECONDS=600`: faults at random against a real deployment, for as long as asked.

Runs are submitted all the time, and every few seconds something is killed, frozen, flushed or asked for. In the end
every accepted run must have come to one end, with all promises kept.
"""

import argparse
import contextlib
import os
import random
import signal
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import httpx2 as httpx
import psutil
import redis
from sqlalchemy.exc import DBAPIError, NoResultFound

import promises
from deployment import Deployment, deploy, train_undisturbed
from server.db.migrate import upgrade
from server.db.tables import ACTIVE, TERMINAL, RunState
from server.queue import redis_client_url
from server.settings import Settings
from sparsify_core.rundir import RunDir
from tiny import build_model, build_text

FAULT_EVERY_S = 5.0
_QUEUED = 3
"""Runs that are kept waiting."""
_PACE_S = 0.1
"""Pause before every step, so that there is something to hit."""


class Soak:
    """What is done to a deployment."""

    def __init__(self, deployment: Deployment, *, chance: random.Random) -> None:
        self._deployment = deployment
        self._chance = chance
        self.injected: Counter[str] = Counter()
        self._faults: dict[str, Callable[[], bool]] = {
            "worker killed": self._kill_worker,
            "worker stopped": self._stop_worker,
            "server killed": self._kill_server,
            "supervisor killed": lambda: self._signal(deployment.supervisor, signal.SIGKILL),
            "torchrun killed": lambda: self._signal(deployment.torchrun, signal.SIGKILL),
            "rank killed": lambda: self._signal(lambda run_id: deployment.ranks(run_id)[0], signal.SIGKILL),
            "rank frozen for 3 s": lambda: self._freeze(lambda run_id: deployment.ranks(run_id)[0]),
            "supervisor frozen for 3 s": lambda: self._freeze(deployment.supervisor),
            "supervisor asked to stop": lambda: self._signal(deployment.supervisor, signal.SIGTERM),
            "broker killed": self._kill_broker,
            "broker flushed": self._flush_broker,
            "wake-up delivered 100 times": self._deliver,
            "database down": self._stop_database,
            "run cancelled": lambda: self._ask("cancel"),
            "run paused": lambda: self._ask("pause"),
            "run requeued": lambda: self._ask("requeue"),
        }

    def run(self, seconds: float) -> None:
        """Until the time is over."""
        until = time.monotonic() + seconds
        fault_at = time.monotonic() + FAULT_EVERY_S
        while time.monotonic() < until:
            with contextlib.suppress(httpx.TransportError, DBAPIError):
                self._feed()
            if time.monotonic() > fault_at:
                fault_at = time.monotonic() + FAULT_EVERY_S
                name = self._chance.choice(list(self._faults))
                if self._faults[name]():
                    self.injected[name] += 1
                    print(f"{time.strftime('%H:%M:%S')} {name}", flush=True)
            time.sleep(0.2)

    def _states(self) -> dict[str, str]:
        ids = [accepted.run_id for accepted in self._deployment.accepted]
        return {run_id: self._deployment.run(run_id).state for run_id in ids}

    def _feed(self) -> None:
        """Keep the queue filled and moving, and nobody waiting for long."""
        self._deployment.resume_queue()
        states = self._states()
        for run_id, state in states.items():
            self._deployment.hurry(run_id)
            if state == RunState.PAUSED and self._chance.random() < 0.1:
                self._deployment.ask("resume", run_id)
        if sum(state not in TERMINAL for state in states.values()) < _QUEUED:
            self._deployment.submit(plans={attempt: {"pace_s": _PACE_S} for attempt in range(1, 50)})

    # --- faults: each says whether there was something to hit

    def _kill_worker(self) -> bool:
        self._deployment.kill_worker()
        self._deployment.start_worker()
        return True

    def _stop_worker(self) -> bool:
        self._deployment.stop_worker()
        self._deployment.start_worker()
        return True

    def _kill_server(self) -> bool:
        self._deployment.kill_server()
        self._deployment.start_server()
        return True

    def _kill_broker(self) -> bool:
        self._deployment.broker.stop()
        time.sleep(self._chance.uniform(0, 3))
        self._deployment.broker.start()
        return True

    def _flush_broker(self) -> bool:
        redis.Redis.from_url(redis_client_url(self._deployment.broker.url)).flushall()
        return True

    def _deliver(self) -> bool:
        self._deployment.deliver(100)
        return True

    def _stop_database(self) -> bool:
        """PostgreSQL crashes; SQLite is locked by somebody."""
        if self._deployment.cluster is not None:
            self._deployment.cluster.stop(at_once=True)
            time.sleep(self._chance.uniform(0, 3))
            self._deployment.cluster.start()
            return True
        path = self._deployment.settings.data_dir / "sparseboard.db"
        with contextlib.closing(sqlite3.connect(path, isolation_level=None, timeout=30)) as lock:
            lock.execute("BEGIN EXCLUSIVE")
            time.sleep(self._chance.uniform(0, 12))
            lock.execute("ROLLBACK")
        return True

    def _target(self) -> str | None:
        active = [run_id for run_id, state in self._states().items() if state in ACTIVE]
        return self._chance.choice(active) if active else None

    def _signal(self, find: Callable[[str], psutil.Process], number: signal.Signals) -> bool:
        run_id = self._target()
        try:
            if run_id is None:
                return False
            find(run_id).send_signal(number)
        except (psutil.Error, IndexError, StopIteration, ValueError):  # it was not there yet, or not any more
            return False
        return True

    def _freeze(self, find: Callable[[str], psutil.Process]) -> bool:
        run_id = self._target()
        try:
            if run_id is None:
                return False
            process = find(run_id)
            process.suspend()
            time.sleep(3)
            process.resume()
        except (psutil.Error, IndexError, StopIteration, ValueError):
            return False
        return True

    def _ask(self, request: str) -> bool:
        unfinished = [run_id for run_id, state in self._states().items() if state not in TERMINAL]
        if not unfinished:
            return False
        run_id = self._chance.choice(unfinished)
        return self._deployment.client.post(f"/api/v1/runs/{run_id}/{request}").status_code == 200


def judge(deployment: Deployment, reference: RunDir) -> int:
    """Have every run come to its end, and count those that have none."""
    deployment.settle(cancels=False)
    lost = 0
    for accepted in deployment.accepted:
        try:
            promises.one_end(deployment, accepted.run_id)
        except (AssertionError, NoResultFound) as error:
            print(f"LOST {accepted.run_id}: {error}")
            lost += 1
    promises.check(deployment, deployment.accepted, reference=reference)
    return lost


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--engine", choices=["sqlite", "postgres"], default="sqlite")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    options = parser.parse_args()
    print(f"soak: {options.seconds:.0f} s on {options.engine}, seed {options.seed}", flush=True)
    os.environ.setdefault("TRITON_INTERPRET", "1")
    with tempfile.TemporaryDirectory(prefix="sb-soak-") as folder:
        root = Path(folder)
        model, text = build_model(root / "model"), build_text(root / "text.jsonl")
        empty = Settings(data_dir=root / "empty", database_url="")
        upgrade(empty)
        template = (empty.data_dir / "sparseboard.db").read_bytes()
        reference = train_undisturbed(RunDir(root / "undisturbed"), model, text)
        with deploy(options.engine, root / "data", template=template, model=model, text=text) as deployment:
            soak = Soak(deployment, chance=random.Random(options.seed))
            soak.run(options.seconds)
            lost = judge(deployment, reference)
            states = Counter(deployment.run(accepted.run_id).state for accepted in deployment.accepted)
    for name, count in sorted(soak.injected.items()):
        print(f"  {count:4} {name}")
    ends = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
    print(f"accepted runs: {sum(states.values())} ({ends})")
    print(f"faults injected: {soak.injected.total()}")
    print(f"lost: {lost}")
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
