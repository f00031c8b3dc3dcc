"""What the holder of a run's lease does: take it, renew it, read what is wanted, give it up."""

import random
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import func, update
from sqlalchemy.exc import IntegrityError
from sqlmodel import Session, col, exists, select

from server.db.runs.apply import execute, make_move
from server.db.runs.leases import Placement, free_devices, quarantine, take_devices
from server.db.runs.moves import CLAIM, DRAIN, FIRST_STEP, RELEASES, backoff_s
from server.db.states import ACTIVE, Intent, RunState
from server.db.tables import Attempt, AttemptNode, ProcessIdentity, Run


class Orders(NamedTuple):
    """What a run's row tells its holder."""

    state: RunState
    intent: Intent

    @property
    def is_to_stop(self) -> bool:
        """Whether the holder shall save, end training and release the run."""
        return self.state == RunState.STOPPING


def claim(session: Session, run_id: str, *, placement: Sequence[Placement], actor: str) -> int | None:
    """Begin an attempt at a queued run: one node for each entry of `placement`, the first one leading.

    The attempt, its nodes and the leases of its devices are written together or not at all.

    Returns:
        The fence, which is the number of the new attempt; None when the run was not there to take or one of the
        devices was not free.
    """
    try:
        with session.begin_nested():
            return _begin(session, run_id, placement, actor)
    except IntegrityError:  # somebody leased a device that was thought to be free
        return None


def _begin(session: Session, run_id: str, placement: Sequence[Placement], actor: str) -> int | None:
    hosts = ", ".join(dict.fromkeys(place.host for place in placement))
    values: dict[str, Any] = {
        "phase": "starting",
        "reason_code": "",
        "message": "",
        "started_at": time.time(),
    }
    if not make_move(session, run_id, CLAIM, actor=actor, detail=f"on {hosts}", **values):
        return None
    fence = session.exec(select(Run.fence).where(Run.id == run_id)).one()
    session.add(Attempt(run_id=run_id, attempt=fence))
    for number, place in enumerate(placement):
        node = AttemptNode(
            run_id=run_id,
            attempt=fence,
            node=number,
            worker_id=place.worker_id,
            host=place.host,
            boot_id=place.boot_id,
            devices=list(place.gpus),
        )
        session.add(node)
        take_devices(session, run_id, fence, number, place)
    return fence


def heartbeat(session: Session, run_id: str, fence: int, *, node: int = 0) -> Orders | None:
    """Renew the lease. Returns what is wanted of the run now, or None when the caller has lost it."""
    held = exists().where(col(Run.id) == run_id, col(Run.fence) == fence, col(Run.state).in_(ACTIVE))
    mine = _node(run_id, fence, node).where(held)
    if execute(session, mine.values(heartbeat=AttemptNode.heartbeat + 1)) == 0:
        return None
    return orders(session, run_id, fence)


def orders(session: Session, run_id: str, fence: int) -> Orders | None:
    """What is wanted of a run, or None when the caller has lost it. Reads only."""
    statement = select(Run.state, Run.intent).where(Run.id == run_id, Run.fence == fence, col(Run.state).in_(ACTIVE))
    row = session.exec(statement).first()
    return None if row is None else Orders(RunState(row[0]), Intent(row[1]))


def active(session: Session) -> list[tuple[Run, AttemptNode]]:
    """All runs that somebody holds, once for each node of the attempt that holds it, the leading one first."""
    statement = (
        select(Run, AttemptNode)
        .where(col(AttemptNode.run_id) == col(Run.id), col(AttemptNode.attempt) == col(Run.fence))
        .where(col(Run.state).in_(ACTIVE))
        .order_by(col(Run.id), col(AttemptNode.node))
    )
    return [(run, node) for run, node in session.exec(statement)]


def is_unchanged(session: Session, seen: AttemptNode, *, with_for_update: bool = False) -> bool:
    """Whether a node is still as it was `seen`: no heartbeat since, no supervisor, no end."""
    statement = select(AttemptNode.heartbeat, AttemptNode.supervisor_pid, AttemptNode.ended_at).where(
        AttemptNode.run_id == seen.run_id, AttemptNode.attempt == seen.attempt, AttemptNode.node == seen.node
    )
    row = session.exec(statement.with_for_update() if with_for_update else statement).first()
    return row is not None and tuple(row) == (seen.heartbeat, seen.supervisor_pid, seen.ended_at)


def endings_of(session: Session, run_id: str) -> dict[str, int]:
    """How many attempts at a run each reason code has ended."""
    ended = select(Attempt.reason_code, func.count()).where(Attempt.run_id == run_id, Attempt.reason_code != "")
    return dict(session.exec(ended.group_by(Attempt.reason_code)).all())


def set_supervisor(session: Session, run_id: str, fence: int, supervisor: ProcessIdentity, *, node: int = 0) -> bool:
    """Note which process carries out a node of an attempt. Returns whether it is this one, and no other before it."""
    pid, namespace = supervisor["pid"], supervisor["pid_namespace"]
    is_this = (col(AttemptNode.supervisor_pid) == pid) & (col(AttemptNode.pid_namespace) == namespace)
    free = _node(run_id, fence, node).where((col(AttemptNode.supervisor_pid) == 0) | is_this)
    values = {"supervisor_pid": pid, "supervisor_started": supervisor["started"], "pid_namespace": namespace}
    return execute(session, free.values(**values)) == 1


def note_processes(session: Session, run_id: str, fence: int, node: int, found: Sequence[ProcessIdentity]) -> None:
    """Note what trains, for whoever has to end it without the supervisor."""
    execute(session, _node(run_id, fence, node).values(processes=list(found)))


def note_first_step(session: Session, run_id: str, fence: int) -> bool:
    """The trainer has reported its first step: from `starting` to `running`."""
    return make_move(session, run_id, FIRST_STEP, actor="supervisor", fence=fence)


def drain(session: Session, run_id: str, fence: int) -> bool:
    """The host stops: the holder will save, and give the run back to the place that it had in the queue."""
    return make_move(session, run_id, DRAIN, actor="supervisor", fence=fence, detail="the host stops")


def release(
    session: Session,
    run_id: str,
    fence: int,
    to: RunState,
    *,
    actor: str,
    outcome: str,
    node: int = 0,
    detail: str = "",
    takes_away: bool = False,
    exit_code: int | None = None,
    **values: Any,
) -> bool:
    """End an attempt and give its devices back: its holder gives the run up, or the reaper takes it away.

    Args:
        to: a key of `RELEASES`; `retry_wait` also sets when the backoff ends.
        outcome: how the attempt ended.
        node: the one whose processes are gone. Devices of others that have not ended are quarantined until theirs are.
        takes_away: the caller is not the holder, who is fenced out.

    Returns whether the attempt still held the run.
    """
    values |= {"phase": ""}
    if to == RunState.RETRY_WAIT:
        tries = max(1, int(values.get("failures", 0)) + int(values.get("losses", 0)))
        # Jitter: runs that one fault ended shall not all start at the same moment.
        values["not_before"] = time.time() + backoff_s(tries) * random.uniform(0.8, 1.0)  # noqa: S311 - no secret
    move = RELEASES[to]
    if not make_move(session, run_id, move, actor=actor, fence=fence, takes_away=takes_away, detail=detail, **values):
        return False
    _set_aside_unended(session, run_id, fence, actor=actor, but=node)
    ended = {"ended_at": time.time()}
    attempt = update(Attempt).where(col(Attempt.run_id) == run_id, col(Attempt.attempt) == fence)
    execute(session, attempt.values(ended | {"outcome": outcome, "reason_code": values.get("reason_code", "")}))
    nodes = update(AttemptNode).where(
        col(AttemptNode.run_id) == run_id, col(AttemptNode.attempt) == fence, col(AttemptNode.ended_at).is_(None)
    )
    execute(session, nodes.values(ended | {"exit_code": exit_code}))
    free_devices(session, run_id, fence)
    return True


def _set_aside_unended(session: Session, run_id: str, fence: int, *, actor: str, but: int) -> None:
    others = select(AttemptNode).where(
        AttemptNode.run_id == run_id,
        AttemptNode.attempt == fence,
        AttemptNode.node != but,
        col(AttemptNode.ended_at).is_(None),
        col(AttemptNode.supervisor_pid) > 0,
    )
    for other in session.exec(others.execution_options(populate_existing=True)).all():
        supervisor = ProcessIdentity(
            pid=other.supervisor_pid,
            started=other.supervisor_started,
            boot_id=other.boot_id,
            pid_namespace=other.pid_namespace,
        )
        found = [supervisor, *other.processes]
        reason = "the attempt is over, and this node has not ended yet"
        quarantine(session, run_id, fence, node=other.node, actor=actor, reason=reason, processes=found)


def _node(run_id: str, fence: int, node: int) -> Any:
    return update(AttemptNode).where(
        col(AttemptNode.run_id) == run_id, col(AttemptNode.attempt) == fence, col(AttemptNode.node) == node
    )
