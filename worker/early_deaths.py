"""Pauses the queue when runs die one after the other right after their start: then it is the machine that is broken,
and every further run would be spent on it.
"""

import logging

from sqlmodel import Session, col, select

from server.db.runs import set_queue_paused
from server.db.tables import Attempt, AttemptNode, QueueState, Run
from worker.failures import FAILURES, UNKNOWN

logger = logging.getLogger(__name__)

EARLY_S = 60.0
"""From the claim to the end; most of it goes to importing PyTorch."""
MAX_EARLY_DEATHS = 3
_MIN_RUNS = 2
"""Of which they are at least: one run that always dies is its own fault."""


def pause_if_runs_die_early(session: Session) -> bool:
    """Look at the attempts that ended last, since the queue was resumed last. Returns whether it is paused now."""
    queue = session.exec(select(QueueState)).one()
    if queue.paused:
        return False
    was_stopped = col(Attempt.outcome).in_(("stopped", "interrupted"))
    is_short = col(Attempt.ended_at) - col(Attempt.started_at) < EARLY_S
    ended = (
        select(Attempt, Run, AttemptNode.host)
        .where(col(Attempt.run_id) == col(Run.id))
        .where(col(AttemptNode.run_id) == col(Run.id), col(AttemptNode.attempt) == col(Attempt.attempt))
        .where(col(AttemptNode.node) == 0, col(Attempt.ended_at).is_not(None), Attempt.started_at > queue.since)
        .where(~(was_stopped & is_short))  # a cancel or a pause says nothing of the machine
        .order_by(col(Attempt.ended_at).desc())
        .limit(MAX_EARLY_DEATHS)
        .execution_options(populate_existing=True)  # the caller may have read these rows before it ended the attempt
    )
    last = list(session.exec(ended))
    runs = {run.id for _, run, _ in last}
    if len(last) < MAX_EARLY_DEATHS or len(runs) < _MIN_RUNS or not all(_is_early(attempt) for attempt, _, _ in last):
        return False
    hosts = ", ".join(sorted({host for _, _, host in last}))
    newest = last[0][1]
    reason = (
        f"{len(last)} attempts in a row, of {len(runs)} runs, died within a minute of their start on {hosts}, the last "
        f"one ({newest.name}) because {newest.message or 'of an unknown reason'}"
    )
    logger.error("the queue is paused: %s", reason)
    return set_queue_paused(session, paused=True, reason=reason)


def _is_early(attempt: Attempt) -> bool:
    """Whether an attempt died soon after its start of something that the run did not ask for."""
    if not attempt.reason_code or attempt.ended_at is None:
        return False
    failure = FAILURES.get(attempt.reason_code, UNKNOWN)
    return not failure.is_of_run and attempt.ended_at - attempt.started_at < EARLY_S
