"""Long series get small: their rows become chunks, a bite at a time, so that nobody waits for it."""

import time
from collections import deque

from server.db.series import HOT_POINTS, ended_unsealed, seal_chunk, unsealed
from server.db.session import Database
from server.db.tables import Run

SEAL_EVENTS = 1024
"""So often a run is looked at for series that fill a chunk."""
BUDGET_S = 0.5
"""About so long a bite takes, one chunk at least: whoever seals has a lease to renew, or other runs to look after."""


class Sealer:
    """Seals series of a run that is being trained, as they fill chunks."""

    def __init__(self, database: Database, run_id: str) -> None:
        self._database = database
        self._run_id = run_id
        self._full: deque[tuple[str, int]] = deque()
        self._num_events = 0

    def go_on(self, num_events: int) -> None:
        """Take a bite, if there is something to seal. `num_events` were ingested since the last call."""
        self._num_events += num_events
        if not self._full and self._num_events >= SEAL_EVENTS:
            with self._database.read() as session:
                self._full += unsealed(session, self._run_id, at_least=HOT_POINTS)
            self._num_events = 0
        _seal(self._database, self._run_id, self._full)


def seal_rest(database: Database, run_id: str) -> None:
    """One bite of all hot rows of a run that nobody trains. What is left stays hot, and `seal_ended` finds it."""
    with database.read() as session:
        found = unsealed(session, run_id, at_least=1)
    _seal(database, run_id, deque(found))


def seal_ended(database: Database) -> None:
    """One bite of a run that has ended, if one has hot rows."""
    with database.read() as session:
        run_id = ended_unsealed(session)
    if run_id is not None:
        seal_rest(database, run_id)


def _seal(database: Database, run_id: str, full: deque[tuple[str, int]]) -> None:
    """Move hot rows of these keys and attempts into chunks, one a transaction; what was sealed leaves `full`."""
    until = time.monotonic() + BUDGET_S
    while full:
        with database.write() as session:
            session.get_one(Run, run_id, with_for_update=True)
            seal_chunk(session, run_id, *full[0])
        full.popleft()
        if time.monotonic() >= until:
            return
