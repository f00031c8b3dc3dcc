"""What a user asks of a run: cancel, pause, resume, requeue. Asked twice it changes nothing more, and answers with the
real state.
"""

import time
from typing import Any

from sqlmodel import Session, select

from server.db.runs.apply import make_move
from server.db.runs.moves import CANCEL, PAUSE, REQUEUE, REQUEUE_HELD, RESUME, Move
from server.db.states import RunState
from server.db.tables import Run


def request_cancel(session: Session, run_id: str, *, actor: str) -> RunState | None:
    """Ask for the end of a run.

    Returns:
        The state afterwards (`cancelled` when nobody held it, `stopping` when a worker must stop it, or the terminal
        state that it was in already); None when there is no such run.
    """
    _first(session, run_id, CANCEL, actor=actor, detail="cancel requested")
    return state_of(session, run_id)


def request_pause(session: Session, run_id: str, *, actor: str) -> RunState | None:
    """Have a run save a checkpoint, give its devices back and wait for `resume`.

    Returns the state afterwards: `paused`, `stopping` while a worker saves, or one that a pause does not change.
    """
    _first(session, run_id, PAUSE, actor=actor, detail="pause requested")
    return state_of(session, run_id)


def resume(session: Session, run_id: str, *, actor: str) -> RunState | None:
    """Queue a paused run again, in the place that it had; one that is being paused is queued when it has stopped.

    Returns the state afterwards: `queued`, `stopping`, or one that resuming does not change.
    """
    _first(session, run_id, RESUME, actor=actor, detail="resume requested")
    return state_of(session, run_id)


def requeue(
    session: Session, run_id: str, *, actor: str, reason_code: str = "", detail: str = "requeue requested"
) -> RunState | None:
    """Have a run give its devices back and queue behind the others of its priority; end the backoff of one that
    is in retry wait. Spends no budget.

    Returns the state afterwards: `queued`, `stopping` while a worker saves, or one that this does not change.
    """
    _first(session, run_id, REQUEUE, actor=actor, detail=detail, reason_code=reason_code)
    return state_of(session, run_id)


def state_of(session: Session, run_id: str) -> RunState | None:
    """The state that a run is in."""
    state = session.exec(select(Run.state).where(Run.id == run_id)).first()
    return None if state is None else RunState(state)


def _first(
    session: Session, run_id: str, moves: tuple[Move, ...], *, actor: str, detail: str, reason_code: str = ""
) -> None:
    """Make the first of `moves` that the run can make."""
    for move in moves:
        values: dict[str, Any] = {"rank": time.time()} if move is REQUEUE_HELD else {}
        if reason_code:
            values["reason_code"] = reason_code
        if make_move(session, run_id, move, actor=actor, detail=detail, **values):
            return
