"""Every move that a run can make: from where, under which intent, and what it does to intent and fence.

Pure: `apply` turns a move into one guarded UPDATE, and the model check in `tests/model` walks through the same table.
"""

from dataclasses import dataclass

from server.db.states import ACTIVE, WAITING, Intent, RunState

MAX_BACKOFF_S = 600.0
_FIRST_BACKOFF_S = 10.0


@dataclass(frozen=True)
class Snapshot:
    """The part of a run's row that decides which moves it can make."""

    state: RunState
    intent: Intent
    fence: int
    attempt: int = 0


@dataclass(frozen=True)
class Move:
    """One kind of move."""

    sources: tuple[RunState, ...]
    to: RunState
    intents: tuple[Intent, ...] = tuple(Intent)
    """What the user may want of the run for the move to happen."""
    sets_intent: Intent | None = None
    is_fenced: bool = False
    """Whether only the holder may make it, who proves with its fence that it is one."""
    begins_attempt: bool = False

    def allows(self, run: Snapshot, fence: int | None = None) -> bool:
        """Whether `run` can make this move; `fence` is the caller's when it holds the run."""
        if self.is_fenced and fence != run.fence:
            return False
        return run.state in self.sources and run.intent in self.intents

    def after(self, run: Snapshot, *, takes_away: bool = False) -> Snapshot:
        """The run behind the move; with `takes_away` its old holder is fenced out, whatever the next state is."""
        intent = self.sets_intent or run.intent
        if self.begins_attempt:
            return Snapshot(self.to, intent, fence=run.attempt + 1, attempt=run.attempt + 1)
        return Snapshot(self.to, intent, fence=run.fence + 1 if takes_away else run.fence, attempt=run.attempt)


_RUN = (Intent.RUN,)
_NOT_CANCEL = (Intent.RUN, Intent.PAUSE)
_TRAINING = (RunState.STARTING, RunState.RUNNING)

CLAIM = Move((RunState.QUEUED,), RunState.STARTING, _RUN, begins_attempt=True)
FIRST_STEP = Move((RunState.STARTING,), RunState.RUNNING, is_fenced=True)

CANCEL_WAITING = Move(WAITING, RunState.CANCELLED, sets_intent=Intent.CANCEL)
CANCEL_HELD = Move(ACTIVE, RunState.STOPPING, _NOT_CANCEL, Intent.CANCEL)
PAUSE_WAITING = Move((RunState.QUEUED, RunState.RETRY_WAIT), RunState.PAUSED, _NOT_CANCEL, Intent.PAUSE)
PAUSE_HELD = Move(ACTIVE, RunState.STOPPING, _RUN, Intent.PAUSE)
RESUME_WAITING = Move((RunState.PAUSED,), RunState.QUEUED, _NOT_CANCEL, Intent.RUN)
RESUME_HELD = Move((RunState.STOPPING,), RunState.STOPPING, (Intent.PAUSE,), Intent.RUN)
REQUEUE_HELD = Move(_TRAINING, RunState.STOPPING, _RUN)
"""`stopping` under the intent `run` means: save, give the devices back, and queue again."""
DRAIN = Move(_TRAINING, RunState.STOPPING, _RUN, is_fenced=True)
"""The same, when the host stops."""
BACKOFF_OVER = Move((RunState.RETRY_WAIT,), RunState.QUEUED, _RUN)

CANCEL = (CANCEL_WAITING, CANCEL_HELD)
PAUSE = (PAUSE_WAITING, PAUSE_HELD)
RESUME = (RESUME_WAITING, RESUME_HELD)
REQUEUE = (REQUEUE_HELD, BACKOFF_OVER)
"""What a user can ask for, as the moves of which a run makes the first that it can."""

RELEASES = {
    RunState.COMPLETED: Move(ACTIVE, RunState.COMPLETED, is_fenced=True),
    RunState.FAILED: Move(ACTIVE, RunState.FAILED, is_fenced=True),
    RunState.CANCELLED: Move(ACTIVE, RunState.CANCELLED, (Intent.CANCEL,), is_fenced=True),
    RunState.PAUSED: Move(ACTIVE, RunState.PAUSED, _NOT_CANCEL, is_fenced=True),
    RunState.RETRY_WAIT: Move(ACTIVE, RunState.RETRY_WAIT, _RUN, is_fenced=True),
    RunState.QUEUED: Move(ACTIVE, RunState.QUEUED, _RUN, is_fenced=True),
}
"""How a holder, or the reaper in its place, gives a run up, by where it goes."""

MOVES = (
    *(CLAIM, FIRST_STEP, DRAIN),
    *(*CANCEL, *PAUSE, *RESUME, *REQUEUE),
    *RELEASES.values(),
)

LEGAL_MOVES: dict[RunState, tuple[RunState, ...]] = {
    source: tuple(to for to in RunState if any(source in move.sources and move.to == to for move in MOVES))
    for source in RunState
}
"""Where a run can go from every state."""


def backoff_s(tries: int) -> float:
    """How long a run waits behind its `tries`-th failure or loss (1, 2, ...) before it is queued again."""
    return min(MAX_BACKOFF_S, _FIRST_BACKOFF_S * 2.0 ** (tries - 1))
