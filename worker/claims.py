"""Takes queued runs that fit this host and starts a supervisor for each."""

import logging
import os
import signal
import subprocess
import sys
from typing import Any

from server.db.runs import active, claim, next_queued, release, set_supervisor
from server.db.session import Database
from server.db.tables import Attempt, Run, RunState
from server.settings import Settings
from worker import processes
from worker.devices import obstacle, place
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
        with self._database.read() as session:
            if not next_queued(session, limit=1):
                return []
        kill_orphans(self._database)
        claimed = self._take()
        for run_id, fence in claimed:
            try:
                self._start_supervisor(run_id, fence)
            except OSError as error:  # a full disk, most likely
                self._give_up(run_id, fence, f"training could not be started: {error}")
        return [run_id for run_id, _ in claimed]

    def _take(self) -> list[tuple[str, int]]:
        claimed = []
        with self._database.write() as session:
            held = [attempt for _, attempt in active(session) if attempt.host == self._host]
            for run in next_queued(session):
                devices = place(run, self._gpus, held)
                if devices is None:
                    self._explain(run)
                    continue
                fence = claim(session, run.id, worker_id=self._worker_id, host=self._host, devices=devices)
                if fence is not None:
                    claimed.append((run.id, fence))
                    held.append(Attempt(run_id=run.id, attempt=fence, worker_id="", host=self._host, devices=devices))
        return claimed

    def _explain(self, run: Run) -> None:
        phase = obstacle(run, self._gpus)
        if run.state == RunState.QUEUED and run.phase != phase:
            run.phase = phase

    def _give_up(self, run_id: str, fence: int, message: str) -> None:
        logger.error("run %s: %s", run_id, message)
        with self._database.write() as session:
            release(
                session,
                run_id,
                fence,
                RunState.FAILED,
                actor="worker",
                outcome="failed",
                detail=message,
                reason_code="start_failed",
                message=message,
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
