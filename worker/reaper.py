"""Takes runs away from supervisors that are dead or silent.

Silence is timed on the reaper's own monotonic clock from the moment it first saw a heartbeat's count, so no clocks are
compared and a reaper that has just started waits a full lease; so does one that could not look for a while, for then
nobody could renew a lease either. A supervisor of this host that is gone is known at once, unless it counts its
process ids in another container.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from server.db.runs import active, is_unchanged, quarantine
from server.db.session import Database
from server.db.tables import AttemptNode, Run, RunState
from server.settings import Settings
from worker import processes
from worker.ending import conclude
from worker.orphans import UNKILLABLE

logger = logging.getLogger(__name__)

BLIND_FRAC, BLIND_S = 0.5, 15.0
"""Part of a lease, and at least so long, without a look: behind that silence is timed anew. Three ticks of a worker."""


@dataclass(frozen=True)
class _Sight:
    attempt: int
    heartbeat: int
    since: float


class Reaper:
    """Remembers between two looks which heartbeats stand still."""

    def __init__(
        self, database: Database, settings: Settings, *, host: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._database = database
        self._settings = settings
        self._host = host
        self._clock = clock
        self._seen: dict[tuple[str, int], _Sight] = {}
        self._looked_at = clock()

    def reap(self) -> list[tuple[str, RunState]]:
        """Look once. Returns the runs that were taken away and where they went."""
        with self._database.read() as session:
            held = active(session)
        now = self._clock()
        if now - self._looked_at > max(self._settings.lease_s * BLIND_FRAC, BLIND_S):
            self._seen = {}
        self._looked_at = now
        sights = {(run.id, node.node): self._sight(node, now) for run, node in held}
        self._seen = sights
        reaped = []
        for run, node in held:
            if node.ended_at is not None:
                continue  # its leader is about to release the run
            if self._is_dead(node) or now - sights[run.id, node.node].since > self._settings.lease_s:
                try:
                    state = self._take_away(run, node)
                except Exception:  # one run's trouble must not keep the others
                    logger.exception("run %s could not be taken away, the next look tries again", run.id)
                    continue
                if state is not None:
                    reaped.append((run.id, state))
        return reaped

    def _sight(self, node: AttemptNode, now: float) -> _Sight:
        seen = self._seen.get((node.run_id, node.node))
        if seen and (seen.attempt, seen.heartbeat) == (node.attempt, node.heartbeat):
            return seen
        return _Sight(node.attempt, node.heartbeat, now)

    def _is_dead(self, node: AttemptNode) -> bool:
        if node.host != self._host:
            return False
        if node.supervisor_pid and node.pid_namespace != processes.pid_namespace():
            return False  # of another container: its process ids mean nothing here
        if node.boot_id and node.boot_id != processes.boot_id():
            return True
        return node.supervisor_pid > 0 and not processes.is_alive(node.supervisor_pid, node.supervisor_started)

    def _take_away(self, run: Run, node: AttemptNode) -> RunState | None:
        with self._database.read() as session:
            if not is_unchanged(session, node):  # while others were taken away
                return None
        logger.warning("the supervisor of run %s, attempt %d, node %d, is gone", run.id, node.attempt, node.node)
        if node.host == self._host:
            self._kill(run.id, node)
        return conclude(
            self._database,
            self._settings,
            run.id,
            node.attempt,
            actor="reaper",
            returncode=None,
            lost=node,
            has_lost_node=run.num_nodes > 1,
            node=node.node,
        )

    def _kill(self, run_id: str, node: AttemptNode) -> None:
        survivors = processes.kill_run(run_id, up_to_fence=node.attempt, also=processes.find(node.processes))
        if survivors:
            found = [processes.identity(process.pid) for process in survivors]
            with self._database.write() as session:
                quarantine(
                    session,
                    run_id,
                    node.attempt,
                    node=node.node,
                    actor="reaper",
                    reason=UNKILLABLE,
                    processes=found,
                )
