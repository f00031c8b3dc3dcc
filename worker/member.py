"""`python -m worker.member RUN_ID FENCE NODE`: carries out a node of an attempt that another node leads.

It joins, trains, and stops when the attempt is over.
"""

import logging
import sys
import time

from server.db.runs import end_node, rendezvous_of
from server.db.tables import AttemptNode, Run
from worker.rendezvous import Rendezvous
from worker.supervisor import POLL_S, Supervisor, main

logger = logging.getLogger(__name__)


class Member(Supervisor):
    """It reads no events, keeps no checkpoints, and leaves the judgement of its end to the leader."""

    def _prepare(self, run: Run) -> None:
        """The leader writes the configuration."""

    def _meet(self, nodes: list[AttemptNode]) -> Rendezvous:
        """Wait until the leader says where."""
        while True:
            self._go_on()
            if endpoint := self._patiently(self._read_rendezvous):
                return self._rendezvous(endpoint, nodes)
            time.sleep(POLL_S)

    def _read_rendezvous(self) -> str:
        with self._database.read() as session:
            return rendezvous_of(session, self._run_id, self._fence)

    def _ingest(self) -> int:
        """The leader does, wherever rank 0 runs."""
        return 0

    def _keep_house(self) -> None:
        """The leader does."""

    def _conclude(self, returncode: int | None) -> int:
        exit_code = 1 if returncode is None else returncode  # it could not be started
        why = {"reason_code": self._cause.reason_code, "message": self._cause.message} if self._cause else {}

        def end() -> None:
            with self._database.write() as session:
                end_node(session, self._run_id, self._fence, self._node, exit_code=exit_code, **why)

        self._persistently(end)
        logger.info("node %d of run %s ended with %s", self._node, self._run_id, exit_code)
        return 0


if __name__ == "__main__":
    sys.exit(main(Member))
