"""What the nodes of one attempt tell each other: where they meet, and how each one ended.

Node 0 leads: it holds the run and releases it. The others write nothing but their own node.
"""

import time

from sqlalchemy import update
from sqlmodel import Session, col, select

from server.db.runs.apply import execute, storable
from server.db.states import ACTIVE
from server.db.tables import Attempt, AttemptNode, Run


def assigned(session: Session, worker_id: str, *, boot_id: str) -> list[tuple[Run, AttemptNode]]:
    """Nodes, with their runs, that were placed on a worker in this boot of its host and have no supervisor yet."""
    statement = (
        select(Run, AttemptNode)
        .join(AttemptNode, (col(Run.id) == col(AttemptNode.run_id)) & (col(Run.fence) == col(AttemptNode.attempt)))
        .where(col(Run.state).in_(ACTIVE), col(AttemptNode.ended_at).is_(None))
        .where(AttemptNode.worker_id == worker_id, AttemptNode.boot_id == boot_id, AttemptNode.supervisor_pid == 0)
    )
    return [(run, node) for run, node in session.exec(statement.order_by(col(Run.id), col(AttemptNode.node)))]


def nodes_of(session: Session, run_id: str, attempt: int) -> list[AttemptNode]:
    """All nodes of an attempt, the leader first."""
    statement = select(AttemptNode).where(AttemptNode.run_id == run_id, AttemptNode.attempt == attempt)
    return list(session.exec(statement.order_by(col(AttemptNode.node))))


def end_node(
    session: Session,
    run_id: str,
    attempt: int,
    node: int,
    *,
    exit_code: int | None,
    reason_code: str = "",
    message: str = "",
) -> None:
    """The processes of a node are gone, or could not be started because of `message`; the leader decides what that
    means.
    """
    mine = update(AttemptNode).where(
        col(AttemptNode.run_id) == run_id,
        col(AttemptNode.attempt) == attempt,
        col(AttemptNode.node) == node,
        col(AttemptNode.ended_at).is_(None),
    )
    why = {"reason_code": reason_code, "message": storable(message)}
    execute(session, mine.values(ended_at=time.time(), exit_code=exit_code, **why))


def offer_rendezvous(session: Session, run_id: str, attempt: int, endpoint: str) -> None:
    """The leader says where the nodes meet."""
    mine = update(Attempt).where(col(Attempt.run_id) == run_id, col(Attempt.attempt) == attempt)
    execute(session, mine.values(rendezvous=endpoint))


def rendezvous_of(session: Session, run_id: str, attempt: int) -> str:
    """Where the nodes of an attempt meet; empty until the leader has said so."""
    statement = select(Attempt.rendezvous).where(Attempt.run_id == run_id, Attempt.attempt == attempt)
    return session.exec(statement).first() or ""
