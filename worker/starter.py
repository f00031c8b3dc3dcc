"""Starts the supervisors of what was placed on this worker."""

import logging
import os
import signal
import subprocess
import sys

from server.db.runs import assigned, set_supervisor
from server.db.session import Database
from server.db.tables import AttemptNode, Run
from server.settings import Settings
from worker import processes
from worker.ending import conclude, start_failure
from worker.orphans import kill_orphans

logger = logging.getLogger(__name__)


class Starter:
    """Starts supervisors for one worker. May be called at any time: a node that has one is left alone."""

    def __init__(self, database: Database, settings: Settings, *, worker_id: str) -> None:
        self._database = database
        self._settings = settings
        self._worker_id = worker_id
        self._supervisors: list[subprocess.Popen[bytes]] = []

    def start(self) -> list[str]:
        """Start the nodes that were placed here and have no supervisor yet. Returns the ids of their runs."""
        self._supervisors = [process for process in self._supervisors if process.poll() is None]
        with self._database.read() as session:
            placed = assigned(session, self._worker_id, boot_id=processes.boot_id())
        if not placed:
            return []
        kill_orphans(self._database)
        for run, node in placed:
            try:
                self._start_supervisor(node, _module_for(run, node))
            except OSError as error:  # a full disk, most likely
                self._give_up(node, error)
        return [run.id for run, _ in placed]

    def _give_up(self, node: AttemptNode, error: OSError) -> None:
        logger.error("run %s could not be started: %s", node.run_id, error)
        conclude(
            self._database,
            self._settings,
            node.run_id,
            node.attempt,
            actor="worker",
            returncode=None,
            cause=start_failure(error),
            node=node.node,
        )

    def _start_supervisor(self, node: AttemptNode, module: str) -> None:
        """A process of its own session: it outlives this worker."""
        log = self._settings.run_dir(node.run_id).supervisor_log(node.attempt, node.node)
        log.parent.mkdir(parents=True, exist_ok=True)
        # Inherited, so that a stop that comes while the supervisor starts waits until it can answer.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, processes.STOP_SIGNALS)
        try:
            with log.open("ab") as output:
                process = subprocess.Popen(
                    [sys.executable, "-m", module, node.run_id, str(node.attempt), str(node.node)],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env=os.environ | processes.marks(node.run_id, node.attempt, node.node),
                    start_new_session=True,
                )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        self._supervisors.append(process)
        with self._database.write() as session:
            set_supervisor(session, node.run_id, node.attempt, processes.identity(process.pid), node=node.node)
        logger.info("run %s, attempt %d, node %d: supervisor %d", node.run_id, node.attempt, node.node, process.pid)


def _module_for(run: Run, node: AttemptNode) -> str:
    if run.num_nodes == 1:
        return "worker.supervisor"
    return "worker.member" if node.node else "worker.leader"
