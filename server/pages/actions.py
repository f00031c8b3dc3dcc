"""What a person can do to a run in the state that it is in: worked out from the table of moves, never listed twice."""

from dataclasses import dataclass

from server.db.runs.moves import CANCEL, PAUSE, REQUEUE, RESUME, Move, Snapshot
from server.db.tables import Intent, Run, RunState


@dataclass(frozen=True)
class Action:
    """A button; `name` is its word in addresses."""

    name: str
    icon: str
    label: str
    help: str


_MOVES: tuple[tuple[Action, tuple[Move, ...]], ...] = (
    (Action("resume", "resume", "Resume", "Queue it again, in the place that it had"), RESUME),
    (Action("pause", "pause", "Pause", "Save a checkpoint, give the devices back and wait for you"), PAUSE),
    (
        Action("requeue", "requeue", "Requeue", "Save a checkpoint, give the devices back and queue behind the others"),
        REQUEUE,
    ),
    (Action("cancel", "cancel", "Cancel", "End it for good; its checkpoints stay"), CANCEL),
)
_RETRY_NOW = Action("requeue", "retry", "Retry now", "Queue it at once instead of when the wait is over")
RETRY = Action("retry", "retry", "Retry", "Go on from the newest checkpoint, as a new run that is linked to this one")


def legal_actions(run: Run, *, has_successor: bool = False) -> dict[str, Action]:
    """The actions that change something now, by name, the likeliest first.

    A run that failed or was cancelled can be retried once: until it `has_successor`.
    """
    here = Snapshot(RunState(run.state), Intent(run.intent), run.fence, run.attempt)
    found = {action.name: action for action, moves in _MOVES if any(move.allows(here) for move in moves)}
    if here.state == RunState.RETRY_WAIT and "requeue" in found:
        found = {"requeue": _RETRY_NOW} | {name: action for name, action in found.items() if name != "requeue"}
    if here.state in (RunState.FAILED, RunState.CANCELLED) and not has_successor:
        found[RETRY.name] = RETRY
    return found
