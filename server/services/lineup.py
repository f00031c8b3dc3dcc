"""What trains now, and who waits: in their order, for another try, or for a person."""

from typing import NamedTuple

from sqlalchemy import func
from sqlmodel import Session, col, select

from server.db.runs import active, next_queued
from server.db.tables import AttemptNode, Intent, QueueState, Run, RunState

SHOWN = 100
"""Queued runs that a page lists."""


class Lineup(NamedTuple):
    """All runs that are not over."""

    queue: QueueState
    active: list[tuple[Run, list[AttemptNode]]]
    """Each with the hosts that train it."""
    queued: list[Run]
    """The first `SHOWN`, in the order in which they start."""
    num_queued: int
    retrying: list[Run]
    """The next one first."""
    paused: list[Run]

    @property
    def num_runs(self) -> int:
        return len(self.active) + self.num_queued + len(self.retrying) + len(self.paused)


def read_lineup(session: Session) -> Lineup:
    """A handful of short queries."""
    held: dict[str, tuple[Run, list[AttemptNode]]] = {}
    for run, node in active(session):
        held.setdefault(run.id, (run, []))[1].append(node)
    in_order = select(func.count()).where(Run.state == RunState.QUEUED, Run.intent == Intent.RUN)
    return Lineup(
        queue=session.exec(select(QueueState)).one(),
        active=sorted(held.values(), key=lambda item: (item[0].started_at or 0.0, item[0].id)),
        queued=next_queued(session, SHOWN),
        num_queued=session.exec(in_order).one(),
        retrying=_in_state(session, RunState.RETRY_WAIT),
        paused=_in_state(session, RunState.PAUSED),
    )


def _in_state(session: Session, state: RunState) -> list[Run]:
    statement = select(Run).where(Run.state == state)
    return list(session.exec(statement.order_by(col(Run.not_before), col(Run.priority).desc(), col(Run.rank))))
