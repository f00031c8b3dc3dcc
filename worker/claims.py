"""Takes queued runs that fit this host and starts a supervisor for each."""

import logging
import os
import signal
import subprocess
import sys
import time
from typing import Any

from server.db.runs import Placement, claim, lock_queue, next_queued, queue_due, set_supervisor, taken
from server.db.session import Database
from server.settings import Settings
from worker import processes
from worker.devices import obstacle, place
from worker.ending import conclude, start_failure
from worker.orphans import kill_orphans

logger = logging.getLogger(__name__)


class Claimer:
    """Claims for one worker. Not thread-safe: two claims at once would give one GPU to two runs."""

    def __init__(
        self, database: Database, settings: Settings, *, worker_id: str, host: str, gpus: list[dict[str, Any]]
    ) -> None:
        self._database = database
        self._settings = settings
        self._worker_id = worker_id
        self._host = host
        self._gpus = gpus
        self._supervisors: list[subprocess.Popen[bytes]] = []

    def claim(self) -> list[str]:
        """Start every queued run that fits. Returns their ids."""
        self._supervisors = [process for process in self._supervisors if process.poll() is None]
        if not self._has_work():
            return []
        kill_orphans(self._database)
        claimed = self._take()
        for run_id, fence in claimed:
            try:
                self._start_supervisor(run_id, fence)
            except OSError as error:  # a full disk, most likely
                self._give_up(run_id, fence, error)
        return [run_id for run_id, _ in claimed]

    def _has_work(self) -> bool:
        with self._database.write() as session:
            queue_due(session, now=time.time())
            return bool(next_queued(session, limit=1))

    def _take(self) -> list[tuple[str, int]]:
        claimed = []
        with self._database.write() as session:
            queue = lock_queue(session)
            for run in next_queued(session):
                gpus = None if queue.paused else place(run, self._gpus, taken(session, self._worker_id))
                if gpus is None:
                    run.waits_for = queue.reason if queue.paused else obstacle(run, self._gpus)
                    continue
                here = Placement(self._worker_id, self._host, processes.boot_id(), gpus)
                fence = claim(session, run.id, placement=[here], actor=f"worker {self._host}")
                if fence is not None:
                    claimed.append((run.id, fence))
        return claimed

    def _give_up(self, run_id: str, fence: int, error: OSError) -> None:
        logger.error("run %s could not be started: %s", run_id, error)
        conclude(
            self._database,
            self._settings,
            run_id,
            fence,
            actor="worker",
            returncode=None,
            cause=start_failure(error),
        )

    def _start_supervisor(self, run_id: str, fence: int) -> None:
        """A process of its own session: it outlives this worker."""
        log = self._settings.run_dir(run_id).supervisor_log(fence)
        log.parent.mkdir(parents=True, exist_ok=True)
        # Inherited, so that a stop that comes while the supervisor starts waits until it can answer.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, processes.STOP_SIGNALS)
        try:
            with log.open("ab") as output:
                process = subprocess.Popen(
                    [sys.executable, "-m", "worker.supervisor", run_id, str(fence)],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env=os.environ | {processes.RUN_ID_VARIABLE: run_id, processes.FENCE_VARIABLE: str(fence)},
                    start_new_session=True,
                )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        self._supervisors.append(process)
        started = processes.start_time(process.pid)
        with self._database.write() as session:
            set_supervisor(session, run_id, fence, pid=process.pid, started=started)
        logger.info("run %s, attempt %d: supervisor %d", run_id, fence, process.pid)
