"""Makes moves: reads the run under a row lock, asks the table of moves, and writes by compare-and-set.

No move happens in any other way, and every one leaves a RunEvent in the same transaction.
"""

import time
from typing import Any, cast

from sqlalchemy import select as core_select
from sqlalchemy import update
from sqlalchemy.engine import CursorResult
from sqlmodel import Session, col

from server.db.runs.moves import Move, Snapshot
from server.db.states import TERMINAL, Intent, RunState
from server.db.tables import Run, RunEvent


def snapshot(session: Session, run_id: str) -> Snapshot | None:
    """Where a run is, with its row locked until the transaction ends; None when there is no such run.

    SQLite has no row locks: there a writing transaction holds the whole database from its first statement.
    """
    columns = (col(Run.state), col(Run.intent), col(Run.fence), col(Run.attempt))
    row = session.execute(core_select(*columns).where(col(Run.id) == run_id).with_for_update()).first()
    return None if row is None else Snapshot(RunState(row[0]), Intent(row[1]), row[2], row[3])


def make_move(
    session: Session,
    run_id: str,
    move: Move,
    *,
    actor: str,
    fence: int | None = None,
    takes_away: bool = False,
    detail: str = "",
    **values: Any,
) -> bool:
    """Make a move if the table of moves allows it.

    Args:
        actor: who moves it (`user`, `worker <host>`, `supervisor`, `reaper`), for the history.
        fence: the caller's, when it holds the run.
        takes_away: also raise the fence: the holder is somebody else, who must not write any more.
        detail: why, in words.
        values: further columns of the run to set; `reason_code` goes into the history too.

    Returns:
        Whether the run moved. False: it is elsewhere by now, or the caller was fenced out.
    """
    before = snapshot(session, run_id)
    if before is None or not move.allows(before, fence):
        return False
    after = move.after(before, takes_away=takes_away)
    if after.state in TERMINAL:
        values.setdefault("finished_at", time.time())
    if before.state == RunState.QUEUED and after.state != RunState.QUEUED:
        values["waits_for"] = ""
    if after.state == RunState.QUEUED:
        values.setdefault("reason_code", "")
        values |= {"queued_at": time.time(), "not_before": None, "started_at": None, "message": "", "log_tail": ""}
    guarded = update(Run).where(
        col(Run.id) == run_id,
        col(Run.state) == before.state,
        col(Run.intent) == before.intent,
        col(Run.fence) == before.fence,
    )
    moved = {"state": after.state, "intent": after.intent, "fence": after.fence, "attempt": after.attempt}
    if execute(session, guarded.values(moved | _storable(values))) == 0:
        return False
    record(
        session,
        run_id,
        actor=actor,
        kind=after.state,
        from_state=before.state,
        reason_code=values.get("reason_code", ""),
        detail=detail,
    )
    return True


def record(
    session: Session,
    run_id: str,
    *,
    actor: str,
    kind: str,
    from_state: str = "",
    reason_code: str = "",
    detail: str = "",
    ts: float | None = None,
) -> None:
    """Append to the run's history, at Unix time `ts` or now."""
    session.add(
        RunEvent(
            run_id=run_id,
            actor=storable(actor)[:100],
            kind=kind,
            from_state=from_state,
            reason_code=reason_code,
            detail=storable(detail),
            ts=time.time() if ts is None else ts,
        )
    )


def storable(text: str) -> str:
    """`text` without what a database refuses: NUL, and halves of characters from file names that are no UTF-8."""
    return text.replace("\x00", "").encode("utf-8", errors="replace").decode("utf-8")


def _storable(values: dict[str, Any]) -> dict[str, Any]:
    return {name: storable(value) if isinstance(value, str) else value for name, value in values.items()}


def execute(session: Session, statement: Any) -> int:
    """Run an UPDATE or DELETE; returns how many rows it met."""
    result = session.execute(statement, execution_options={"synchronize_session": False})
    return cast(CursorResult[Any], result).rowcount
