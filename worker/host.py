"""The worker of this host: one per host and data folder, with one row in the database."""

import fcntl
import logging
import os
import socket
import threading
import time
from typing import IO

from sqlmodel import select

from server.db.session import Database
from server.db.tables import RunState, Worker
from server.queue import PROTOCOL, wake_workers
from server.settings import Settings
from worker.claims import Claimer
from worker.devices import inventory, num_cores
from worker.hints import Hints
from worker.orphans import kill_orphans, lift_quarantines
from worker.processes import boot_id
from worker.reaper import Reaper

logger = logging.getLogger(__name__)

SEEN_EVERY_S = 10.0
PROBE_EVERY_S = 30.0
"""How often the workers send themselves a wake-up, so that one that takes none any more is noticed."""


class WorkerIsRunningError(Exception):
    """Another worker serves this data folder on this host."""


class HostWorker:
    """Claims, reaps and reports for this host. `claim` and `tick` may be called from any thread."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._database = Database(settings)
        self._hints = Hints(settings.redis_url)
        self._host = socket.gethostname()
        self._lock = threading.Lock()
        self._seen_at = 0.0
        self._probed_at = 0.0
        self._consumed_at: float | None = None
        self._only_one = self._take_host()
        self._gpus = inventory()
        self._worker_id = self._register()
        self._claimer = Claimer(self._database, settings, worker_id=self._worker_id, host=self._host, gpus=self._gpus)
        self._reaper = Reaper(self._database, settings, host=self._host)
        kill_orphans(self._database)

    def claim(self) -> int:
        """Start the queued runs that fit. Returns how many."""
        with self._lock:
            started = self._claimer.claim()
        for run_id in started:
            self._hints.publish(run_id)
        return len(started)

    def consumed(self) -> None:
        """A message came through the broker."""
        self._consumed_at = time.time()

    def tick(self) -> int:
        """Say that this worker lives, take runs from dead supervisors, claim. Returns how many runs were started."""
        self._probe()
        with self._lock:
            self._report()
            lift_quarantines(self._database, self._worker_id)
            reaped = self._reaper.reap()
        for run_id, state in reaped:
            logger.warning("run %s: %s", run_id, "waits to be tried again" if state == RunState.RETRY_WAIT else state)
            self._hints.publish(run_id)
        return self.claim()

    def _take_host(self) -> IO[str]:
        self._settings.data_dir.mkdir(parents=True, exist_ok=True)
        file = (self._settings.data_dir / f".worker-{self._host}.lock").open("w")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise WorkerIsRunningError(
                f"another worker serves the data folder {self._settings.data_dir} on this machine already"
            ) from None
        return file

    def _register(self) -> str:
        with self._database.write() as session:
            row = session.exec(select(Worker).where(Worker.host == self._host)).first()
            row = row or Worker(host=self._host, pid=0)
            row.pid, row.boot_id, row.protocol = os.getpid(), boot_id(), PROTOCOL
            row.devices, row.cpu_count = self._gpus, num_cores()
            row.started_at = row.seen_at = time.time()
            row.consumed_at = None
            session.add(row)
            return row.id

    def _probe(self) -> None:
        """Celery can stay connected and stop taking messages, which no look at the process shows."""
        now = time.monotonic()
        if not self._settings.redis_url or now - self._probed_at < PROBE_EVERY_S:
            return
        self._probed_at = now
        if not wake_workers(self._settings.redis_url):
            self._consumed_at = time.time()  # it is the broker that is silent

    def _report(self) -> None:
        now = time.monotonic()
        if now - self._seen_at < SEEN_EVERY_S:
            return
        with self._database.write() as session:
            row = session.get(Worker, self._worker_id)
            if row is not None:
                row.seen_at, row.consumed_at = time.time(), self._consumed_at
        self._seen_at = now
