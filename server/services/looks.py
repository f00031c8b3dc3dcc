"""How runs look now, read once for all streams that follow them.

With fifty viewers every point would otherwise be asked for fifty times, and the last of them would get it long after
the first.
"""

import threading
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

from sqlmodel import Session, func, select

from server.db.series import Place, Replayed, replay
from server.db.session import Database
from server.db.tables import Checkpoint, Run, RunEvent, StepTiming
from server.hints import Hints
from server.services import metrics

_FRESH_S = 1.0
"""Not every change comes with a hint; this is less than the patience of a stream."""
_KEPT = 64
MAX_ROWS = 4000


@dataclass(frozen=True)
class Look:
    """One moment of a run."""

    began: float
    run: Run
    newest: Place
    """The newest event whose points are in the database."""
    status: dict[str, Any]
    """As `status_of` has it; the step comes with the metrics."""
    replays: dict[Place, Replayed | None] = field(default_factory=dict)


class _Slot:
    """The newest look at one run, and the lock of whoever takes it."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.look: Look | None = None


class Looks:
    """Looks at runs that several threads share."""

    def __init__(self, database: Database, hints: Hints) -> None:
        self._database = database
        self._hints = hints
        self._lock = threading.Lock()
        self._slots: OrderedDict[str, _Slot] = OrderedDict()

    def look(self, run_id: str) -> Look | None:
        """The run as it is now, or was at most a second ago if no hint about it has come since. None if it is gone."""
        slot = self._slot(run_id)
        with slot.lock:
            if slot.look is None or not self._is_fresh(run_id, slot.look):
                slot.look = self._read(run_id)
            return slot.look

    def replay(self, look: Look, behind: Place) -> Replayed | None:
        """The points from behind an event up to the look's newest. None when the series are loaded faster anew."""
        with self._slot(look.run.id).lock:
            if behind not in look.replays:
                with self._database.read() as session:
                    look.replays[behind] = replay(session, look.run.id, behind, look.newest, limit=MAX_ROWS)
            return look.replays[behind]

    def _slot(self, run_id: str) -> _Slot:
        with self._lock:
            slot = self._slots.setdefault(run_id, _Slot())
            self._slots.move_to_end(run_id)
            if len(self._slots) > _KEPT:
                self._slots.popitem(last=False)
            return slot

    def _is_fresh(self, run_id: str, look: Look) -> bool:
        heard_at = self._hints.heard_of(run_id)
        return self._hints.is_connected and look.began > max(heard_at, time.monotonic() - _FRESH_S)

    def _read(self, run_id: str) -> Look | None:
        began = time.monotonic()
        with self._database.read() as session:
            run = session.get(Run, run_id)
            return None if run is None else Look(began, run, metrics.position(session, run_id), status_of(session, run))


def status_of(session: Session, run: Run) -> dict[str, Any]:
    """What the run's page shows besides its series and its log: equal ones look the same."""
    saved = select(func.count(), func.max(Checkpoint.created_at)).where(Checkpoint.run_id == run.id)
    num_checkpoints, last_saved = session.exec(saved).one()
    last_event = session.exec(select(func.max(RunEvent.id)).where(RunEvent.run_id == run.id)).one()
    last_timed = session.exec(select(func.max(StepTiming.ts)).where(StepTiming.run_id == run.id)).one()
    return {
        "run_id": run.id,
        "state": run.state,
        "intent": run.intent,
        "phase": run.phase,
        "waits_for": run.waits_for,
        "total_steps": run.total_steps,
        "attempt": run.attempt,
        "message": run.message,
        "num_checkpoints": num_checkpoints,
        "last_saved_at": last_saved,
        "last_event_id": last_event,
        "last_timed_at": last_timed,
    }
