"""The run state machine. Every move is one conditional UPDATE whose row count is checked, and leaves a RunEvent.

`intent` is written by the API (`request_cancel`), `state` by the lease holder and the reaper, or by the API while
nobody holds the lease. A holder passes its fence with every write: no row updated means that it has lost the run and
must stop.
"""

import time
from typing import Any, cast

from sqlalchemy import update
from sqlalchemy.engine import CursorResult
from sqlmodel import Session, col, select

from server.db.tables import ACTIVE, TERMINAL, Attempt, Intent, Run, RunEvent, RunState

LEGAL_MOVES: dict[RunState, tuple[RunState, ...]] = {
    RunState.QUEUED: (RunState.STARTING, RunState.CANCELLED, RunState.FAILED),
    RunState.STARTING: (
        RunState.RUNNING,
        RunState.STOPPING,
        RunState.COMPLETED,
        RunState.FAILED,
        RunState.CANCELLED,
        RunState.QUEUED,
    ),
    RunState.RUNNING: (RunState.STOPPING, RunState.COMPLETED, RunState.FAILED, RunState.CANCELLED, RunState.QUEUED),
    RunState.STOPPING: (RunState.CANCELLED, RunState.COMPLETED, RunState.FAILED),
    RunState.COMPLETED: (),
    RunState.FAILED: (),
    RunState.CANCELLED: (),
}


def transition(
    session: Session,
    run_id: str,
    to: RunState,
    *,
    actor: str,
    detail: str = "",
    fence: int | None = None,
    **values: Any,
) -> bool:
    """Move a run to `to` if its state allows that and, with `fence`, if the caller still holds it.

    Args:
        actor: who moves it (`user`, `worker <id>`, `supervisor`, `reaper`), for the history.
        detail: why, in words.
        fence: the caller's attempt number, which then must still hold the run; None when no lease is involved.
        values: further columns of the run to set.

    Returns:
        Whether the run moved. False: it is elsewhere by now, or the caller was fenced out.
    """
    sources = [state for state, targets in LEGAL_MOVES.items() if to in targets]
    statement = update(Run).where(col(Run.id) == run_id, col(Run.state).in_(sources))
    if fence is not None:
        statement = statement.where(col(Run.fence) == fence, col(Run.state).in_(ACTIVE))
    if to in TERMINAL:
        values.setdefault("finished_at", time.time())
    if _execute(session, statement.values(state=to, **values)) == 0:
        return False
    record(session, run_id, actor=actor, kind=to, detail=detail)
    return True


def record(session: Session, run_id: str, *, actor: str, kind: str, detail: str = "") -> None:
    """Append to the run's history."""
    session.add(RunEvent(run_id=run_id, actor=storable(actor)[:100], kind=kind, detail=storable(detail)))


def storable(text: str) -> str:
    """`text` without what a database refuses: NUL, and halves of characters from file names that are no UTF-8."""
    return text.replace("\x00", "").encode("utf-8", errors="replace").decode("utf-8")


def request_cancel(session: Session, run_id: str, *, actor: str) -> RunState | None:
    """Ask for the end of a run. Idempotent.

    Returns:
        The state afterwards (`cancelled` when nobody held it, `stopping` when a worker must stop it, or the terminal
        state that it was in already); None when there is no such run.
    """
    run = session.get(Run, run_id)
    if run is None:
        return None
    wanted = update(Run).where(col(Run.id) == run_id, col(Run.state).not_in(TERMINAL), col(Run.intent) != Intent.CANCEL)
    _execute(session, wanted.values(intent=Intent.CANCEL))
    # Both moves are tried at every call, whatever was read above: the run may have gone back to the queue meanwhile.
    if not transition_from(session, run_id, RunState.QUEUED, RunState.CANCELLED, actor=actor):
        transition(session, run_id, RunState.STOPPING, actor=actor, detail="cancel requested")
    session.expire(run)
    session.refresh(run)
    return RunState(run.state)


def transition_from(
    session: Session, run_id: str, source: RunState, to: RunState, *, actor: str, detail: str = "", **values: Any
) -> bool:
    """`transition`, but only out of the one state `source`."""
    if to in TERMINAL:
        values.setdefault("finished_at", time.time())
    statement = update(Run).where(col(Run.id) == run_id, col(Run.state) == source)
    if _execute(session, statement.values(state=to, **values)) == 0:
        return False
    record(session, run_id, actor=actor, kind=to, detail=detail)
    return True


def claim(session: Session, run_id: str, *, worker_id: str, host: str, devices: list[int]) -> int | None:
    """Take the lease of a queued run for a worker.

    Returns:
        The fence (attempt number) of the new attempt, or None when the run was not there to take.
    """
    run = session.get(Run, run_id)
    if run is None:
        return None
    fence = run.fence + 1
    statement = (
        update(Run)
        .where(
            col(Run.id) == run_id,
            col(Run.state) == RunState.QUEUED,
            col(Run.intent) == Intent.RUN,
            col(Run.fence) == run.fence,
        )
        .values(
            state=RunState.STARTING,
            fence=fence,
            worker_id=worker_id,
            heartbeat=0,
            phase="starting",
            reason_code="",
            message="",
            started_at=time.time(),
        )
    )
    if _execute(session, statement) == 0:
        return None
    session.add(Attempt(run_id=run_id, attempt=fence, worker_id=worker_id, host=host, devices=devices))
    record(session, run_id, actor=f"worker {host}", kind=RunState.STARTING, detail=f"attempt {fence}")
    return fence


def heartbeat(session: Session, run_id: str, fence: int) -> Intent | None:
    """Renew the lease. Returns what the user wants of the run now, or None when the caller has lost it."""
    statement = (
        update(Run)
        .where(col(Run.id) == run_id, col(Run.fence) == fence, col(Run.state).in_(ACTIVE))
        .values(heartbeat=Run.heartbeat + 1)
    )
    if _execute(session, statement) == 0:
        return None
    intent = session.exec(select(Run.intent).where(Run.id == run_id)).one()
    return Intent(intent)


def wanted(session: Session, run_id: str, fence: int) -> Intent | None:
    """What the user wants of a run, or None when the caller has lost it. Reads only."""
    statement = select(Run.intent).where(Run.id == run_id, Run.fence == fence, col(Run.state).in_(ACTIVE))
    intent = session.exec(statement).first()
    return None if intent is None else Intent(intent)


def active(session: Session) -> list[tuple[Run, Attempt]]:
    """All runs that a worker holds, each with the attempt that holds it."""
    statement = (
        select(Run, Attempt)
        .where(col(Attempt.run_id) == col(Run.id), col(Attempt.attempt) == col(Run.fence))
        .where(col(Run.state).in_(ACTIVE))
    )
    return [(run, attempt) for run, attempt in session.exec(statement)]


def set_supervisor(session: Session, run_id: str, fence: int, *, pid: int, started: float) -> None:
    """Note which process carries out an attempt."""
    statement = update(Attempt).where(col(Attempt.run_id) == run_id, col(Attempt.attempt) == fence)
    _execute(session, statement.values(supervisor_pid=pid, supervisor_started=started))


def release(
    session: Session,
    run_id: str,
    fence: int,
    to: RunState,
    *,
    actor: str,
    outcome: str,
    detail: str = "",
    **values: Any,
) -> bool:
    """End an attempt: its holder gives the run up, or the reaper takes it away, into a terminal state or the queue.

    Returns whether the attempt still held the run.
    """
    values = {name: storable(value) if isinstance(value, str) else value for name, value in values.items()}
    if to == RunState.QUEUED:
        values |= {"worker_id": None, "phase": "queued", "started_at": None}
    else:
        values |= {"phase": ""}
    if not transition(session, run_id, to, actor=actor, detail=detail, fence=fence, **values):
        return False
    statement = update(Attempt).where(col(Attempt.run_id) == run_id, col(Attempt.attempt) == fence)
    _execute(session, statement.values(ended_at=time.time(), outcome=outcome))
    return True


def next_queued(session: Session, limit: int = 20) -> list[Run]:
    """Queued runs in the order in which they should start: higher priority first, then the older ones."""
    statement = (
        select(Run)
        .where(col(Run.state) == RunState.QUEUED, col(Run.intent) == Intent.RUN)
        .order_by(col(Run.priority).desc(), col(Run.queued_at), col(Run.id))
        .limit(limit)
    )
    return list(session.exec(statement))


def _execute(session: Session, statement: Any) -> int:
    result = session.execute(statement, execution_options={"synchronize_session": False})
    return cast(CursorResult[Any], result).rowcount
