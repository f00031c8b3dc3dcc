"""The worker of this process: it places runs, starts what was placed on it, reaps and reports.

Several may serve one data folder, on as many machines or on one; each has a name, and one row in the database.
"""

import fcntl
import logging
import os
import socket
import threading
import time
from typing import IO

from sqlmodel import select

from server.db.placing import has_queued, place_queued
from server.db.session import Database
from server.db.tables import RunState, Worker
from server.db.workers import add_sample
from server.queue import PROTOCOL, wake_workers
from server.scheduling import ALIVE_S
from server.settings import Settings
from worker.devices import Gpus, measure_host, num_cores
from worker.hints import Hints
from worker.orphans import kill_orphans, lift_quarantines
from worker.processes import boot_id, pid_namespace
from worker.reaper import Reaper
from worker.sealing import seal_ended
from worker.starter import Starter

logger = logging.getLogger(__name__)

SEEN_EVERY_S = 10.0
PROBE_EVERY_S = 30.0
"""How often the workers send themselves a wake-up, so that one that takes none any more is noticed."""


class WorkerIsRunningError(Exception):
    """Another worker of this name serves this data folder."""


class HostWorker:
    """One worker. `look` and `tick` may be called from any thread."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._database = Database(settings)
        self._hints = Hints(settings.redis_url)
        self._name = settings.worker_name
        self._lock = threading.Lock()
        self._seen_at = 0.0
        self._probed_at = 0.0
        self._consumed_at: float | None = None
        self._only_one = self._take_name()
        self._gpus = Gpus()
        measure_host(settings.data_dir)  # the load of the cores is counted from here on
        self.worker_id = self._register()
        self._starter = Starter(self._database, settings, worker_id=self.worker_id)
        self._reaper = Reaper(self._database, settings, host=socket.gethostname())
        kill_orphans(self._database)

    def look(self) -> int:
        """Place what fits, on whatever worker, and start what was placed here. Returns how many runs were started."""
        with self._lock:
            self._place()
            started = self._starter.start()
        for run_id in started:
            self._hints.publish(run_id)
        return len(started)

    def consumed(self) -> None:
        """A message came through the broker."""
        self._consumed_at = time.time()

    def tick(self) -> int:
        """Say that this worker lives, take runs from the dead, look, seal. Returns how many runs were started."""
        self._probe()
        self._report()
        with self._lock:
            lift_quarantines(self._database, self.worker_id)
            reaped = self._reaper.reap()
        for run_id, state in reaped:
            logger.warning("run %s: %s", run_id, "retry wait" if state == RunState.RETRY_WAIT else state)
            self._hints.publish(run_id)
        started = self.look()
        seal_ended(self._database)
        return started

    def leave(self) -> None:
        """Let nothing more be placed here: this worker stops."""
        with self._database.write() as session:
            row = session.get(Worker, self.worker_id)
            if row is not None:
                row.seen_at = min(row.seen_at, time.time() - ALIVE_S)

    def _place(self) -> None:
        with self._database.read() as session:
            if not has_queued(session, now=time.time()):
                return
        with self._database.write() as session:
            placed = place_queued(session, actor=f"worker {self._name}", now=time.time())
        for worker_id in {worker_id for one in placed for worker_id in one.worker_ids} - {self.worker_id}:
            self._hints.wake(worker_id)

    def _take_name(self) -> IO[str]:
        self._settings.data_dir.mkdir(parents=True, exist_ok=True)
        file = (self._settings.data_dir / f".worker-{self._name}.lock").open("w")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise WorkerIsRunningError(
                f"another worker called {self._name} serves the data folder {self._settings.data_dir} already: "
                "stop it, or give this one another --name"
            ) from None
        return file

    def _register(self) -> str:
        with self._database.write() as session:
            row = session.exec(select(Worker).where(Worker.name == self._name)).first()
            row = row or Worker(name=self._name, host="", pid=0)
            row.host, row.pid, row.boot_id, row.protocol = socket.gethostname(), os.getpid(), boot_id(), PROTOCOL
            row.pid_namespace = pid_namespace()
            row.labels, row.cpu_slots = list(self._settings.worker_labels), self._settings.cpu_slots
            row.devices, row.cpu_count = self._gpus.measure(), num_cores()
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
        # In the background: a broker that is away takes seconds to say so, and the tick has runs to start.
        threading.Thread(target=self._send_probe, name="probe", daemon=True).start()

    def _send_probe(self) -> None:
        if not wake_workers(self._settings.redis_url):
            self._consumed_at = time.time()  # it is the broker that is silent

    def _report(self) -> None:
        now = time.monotonic()
        if now - self._seen_at < SEEN_EVERY_S:
            return
        devices, host = self._gpus.measure(), self._measure_host()
        with self._database.write() as session:
            row = session.get(Worker, self.worker_id)
            if row is not None:
                row.seen_at, row.devices, row.consumed_at = time.time(), devices, self._consumed_at
                if host is not None:
                    add_sample(session, row, host)
        self._seen_at = now

    def _measure_host(self) -> dict[str, float] | None:
        """None when the disk of the data folder does not answer: then there are runs to be saved."""
        try:
            return measure_host(self._settings.data_dir)
        except OSError as error:
            logger.warning("the disk of the data folder cannot be measured: %s", error)
            return None
