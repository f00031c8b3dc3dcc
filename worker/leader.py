"""`python -m worker.leader RUN_ID FENCE 0`: leads an attempt on several nodes.

The leader says where the nodes meet, holds the run, and judges how the attempt ended once it knows how its members did.
"""

import sys
import time
from collections.abc import Callable

from server.db.runs import nodes_of, offer_rendezvous
from server.db.session import Database
from server.db.tables import AttemptNode
from server.settings import Settings
from sparsify_core.events import AttemptFinished
from worker.rendezvous import Rendezvous, free_endpoint, own_address
from worker.supervisor import Supervisor, main

BROKEN_GRACE_S = 10.0
"""How long training may go on without a node that broke: usually the other ranks notice by themselves."""
ACCOUNT_S = 120.0
"""How long the leader waits for its members to say how they ended: a little more than it takes one to save, to be
killed and to hang. The reaper takes less for a silent one."""

_POLL_S = 0.5


class Members:
    """The nodes besides the leader. A node that vanishes is the reaper's to find: it takes the whole attempt away."""

    def __init__(self, database: Database, run_id: str, fence: int) -> None:
        self._database = database
        self._run_id = run_id
        self._fence = fence
        self._broken_at: float | None = None
        self.exit_code: int | None = None
        """Of the first member that broke; None while none did."""
        self.cause: AttemptFinished | None = None
        """Why that one could not start, if it could not."""
        self.have_ended = False

    def look(self) -> None:
        """Read how they are."""
        with self._database.read() as session:
            members = nodes_of(session, self._run_id, self._fence)[1:]
        # One without a supervisor has nothing to end, and will find that the attempt is over.
        self.have_ended = all(node.ended_at is not None or not node.supervisor_pid for node in members)
        broken = [node for node in members if node.ended_at is not None and node.exit_code != 0]
        if broken and self._broken_at is None:
            self._broken_at = time.monotonic()
            first = broken[0]
            self.exit_code = first.exit_code
            if first.reason_code:
                self.cause = AttemptFinished(outcome="failed", reason_code=first.reason_code, message=first.message)

    @property
    def are_broken(self) -> bool:
        """Whether one broke long ago, and training should have ended by itself."""
        return self._broken_at is not None and time.monotonic() - self._broken_at > BROKEN_GRACE_S

    def wait(self, meanwhile: Callable[[], None]) -> bool:
        """Until all have ended, calling `meanwhile` often, which shall look. Returns whether they have."""
        deadline = time.monotonic() + ACCOUNT_S
        while not self.have_ended and time.monotonic() < deadline:
            meanwhile()
            time.sleep(_POLL_S)
        return self.have_ended


class Leader(Supervisor):
    """Node 0 of an attempt with several."""

    def __init__(self, settings: Settings, run_id: str, fence: int, node: int = 0) -> None:
        super().__init__(settings, run_id, fence, node)
        self._members = Members(self._database, run_id, fence)

    def _meet(self, nodes: list[AttemptNode]) -> Rendezvous:
        endpoint = free_endpoint(own_address(self._settings.worker_address, [node.host for node in nodes]))

        def offer() -> None:
            with self._database.write() as session:
                offer_rendezvous(session, self._run_id, self._fence, endpoint)

        self._persistently(offer)
        return self._rendezvous(endpoint, nodes)

    def _keep_house(self) -> None:
        super()._keep_house()
        self._patiently(self._members.look)

    def _is_broken(self) -> bool:
        return self._members.are_broken

    def _account(self, returncode: int | None) -> tuple[int | None, bool]:
        if returncode is None:  # it could not start, and its members wait for it: they see that they lost the run
            return None, False
        have_ended = self._members.wait(
            self._listen
        )  # however it ended: their devices are given back with the leader's
        self._cause = self._cause or self._members.cause
        return (self._members.exit_code or returncode, not have_ended) if returncode else (0, False)

    def _listen(self) -> None:
        """Hold the lease and hear how the members are."""
        self._look()
        self._patiently(self._members.look)


if __name__ == "__main__":
    sys.exit(main(Leader))
