"""The order in which runs start, and what changes it. Higher priority first, then lower rank."""

import math
import time
from typing import Any

from sqlalchemy import update
from sqlmodel import Session, col, select

from server.db.runs.apply import execute, make_move, record
from server.db.runs.moves import BACKOFF_OVER
from server.db.states import WAITING, Intent, RunState
from server.db.tables import QueueState, Run

_ORDER = (col(Run.priority).desc(), col(Run.rank), col(Run.id))


def lock_queue(session: Session) -> QueueState:
    """The queue's row, locked until the transaction ends: one at a time places or reorders runs."""
    return session.exec(select(QueueState).with_for_update()).one()


def set_queue_paused(session: Session, *, paused: bool, reason: str = "") -> bool:
    """Hold queued runs back, or let them start again. Returns whether that is new; the first reason stays."""
    changed = update(QueueState).where(col(QueueState.paused) != paused)
    return execute(session, changed.values(paused=paused, reason=reason, since=time.time())) == 1


def next_queued(session: Session, limit: int = 20) -> list[Run]:
    """Queued runs in the order in which they should start."""
    queued = select(Run).where(col(Run.state) == RunState.QUEUED, col(Run.intent) == Intent.RUN)
    return list(session.exec(queued.order_by(*_ORDER).limit(limit)))


def queue_due(session: Session, *, now: float) -> list[str]:
    """Queue the runs whose backoff is over. Returns their ids."""
    due = select(Run.id).where(col(Run.state) == RunState.RETRY_WAIT, col(Run.not_before) <= now)
    return [
        run_id
        for run_id in session.exec(due.order_by(col(Run.id))).all()
        if make_move(session, run_id, BACKOFF_OVER, actor="scheduler", detail="the backoff is over")
    ]


def waiting(session: Session, priority: int | None = None) -> list[Run]:
    """Runs that have a place in the queue (queued, paused, or between two tries), in its order."""
    statement = select(Run).where(col(Run.state).in_(WAITING))
    if priority is not None:
        statement = statement.where(col(Run.priority) == priority)
    return list(session.exec(statement.order_by(*_ORDER)))


def move_beside(session: Session, run_id: str, other_id: str, *, ahead: bool, actor: str) -> bool:
    """Put a run directly ahead of another one, or behind it, taking over its priority.

    Returns whether both have a place in the queue; nothing changes otherwise.
    """
    lock_queue(session)
    runs = {run.id: run for run in waiting(session)}
    run, other = runs.get(run_id), runs.get(other_id)
    if run is None or other is None:
        return False
    if run is other:
        return True
    peers = [peer for peer in runs.values() if peer.priority == other.priority and peer is not run]
    place = peers.index(other) + (0 if ahead else 1)
    if run.priority == other.priority and _is_at(list(runs.values()), run, other, ahead=ahead):
        return True
    rank = _rank_at([peer.rank for peer in peers], place)
    if rank is None:
        _renumber(session, peers)
        rank = _rank_at([peer.rank for peer in peers], place)
    detail = f"{'ahead of' if ahead else 'behind'} {other.name} ({other.id})"
    return _place(session, run, {"priority": other.priority, "rank": rank}, actor=actor, detail=detail)


def move_to_end(session: Session, run_id: str, *, first: bool, actor: str) -> bool:
    """Put a run before all that wait, or behind them. Returns whether it has a place in the queue."""
    lock_queue(session)
    others = [run.id for run in waiting(session) if run.id != run_id]
    if not others:
        return any(run.id == run_id for run in waiting(session))
    return move_beside(session, run_id, others[0] if first else others[-1], ahead=first, actor=actor)


def set_priority(session: Session, run_id: str, priority: int, *, actor: str) -> bool:
    """Change a run's priority; it keeps its rank. Returns whether that is new."""
    lock_queue(session)
    changed = update(Run).where(col(Run.id) == run_id, col(Run.priority) != priority)
    if execute(session, changed.values(priority=priority)) == 0:
        return False
    record(session, run_id, actor=actor, kind="moved", detail=f"priority {priority}")
    return True


def _place(session: Session, run: Run, values: dict[str, Any], *, actor: str, detail: str) -> bool:
    mine = update(Run).where(col(Run.id) == run.id, col(Run.state).in_(WAITING))
    if execute(session, mine.values(values)) == 0:
        return False
    record(session, run.id, actor=actor, kind="moved", detail=detail)
    return True


def _is_at(order: list[Run], run: Run, other: Run, *, ahead: bool) -> bool:
    return order.index(other) - order.index(run) == (1 if ahead else -1)


def _rank_at(ranks: list[float], place: int) -> float | None:
    """A rank between the neighbours of `place`; None when no number lies between theirs."""
    if place == 0:
        return ranks[0] - 1.0
    below = ranks[place - 1]
    if place == len(ranks):  # a run that is queued later has the time as its rank, and comes behind
        return math.nextafter(max(below, time.time()), math.inf)
    middle = (below + ranks[place]) / 2
    return middle if below < middle < ranks[place] else None


def _renumber(session: Session, peers: list[Run]) -> None:
    """Spread the ranks of a priority, a second apart and all in the past, keeping their order."""
    first = min(time.time() - len(peers), *(peer.rank for peer in peers))
    for number, peer in enumerate(peers):
        peer.rank = first + number
        session.add(peer)
    session.flush()
