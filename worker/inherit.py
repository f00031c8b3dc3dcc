"""Gives the successor of a failed or cancelled run what that one saved, so that it goes on from there."""

from collections.abc import Callable, Sequence

from server.db.session import Database
from server.db.tables import Run
from sparsify_core.linking import link_checkpoint
from sparsify_core.rundir import RunDir

_NEWEST = 2
"""The newest may turn out to be damaged: then the one before is what the trainer resumes from."""


def ancestors_of(database: Database, run: Run) -> list[str]:
    """Ids of the run that `run` retries, of the one that that one retried, and so on."""
    found = []
    with database.read() as session:
        ancestor: Run | None = run
        while ancestor is not None and ancestor.retry_of is not None:
            found.append(ancestor.retry_of)
            ancestor = session.get(Run, ancestor.retry_of)
    return found


def inherit_checkpoints(ancestors: Sequence[RunDir], own: RunDir, *, meanwhile: Callable[[], None]) -> list[int]:
    """Put the newest checkpoints of the nearest ancestor that has saved any into `own`, unless it has some itself.

    Whether one is intact the trainer finds out.

    Args:
        meanwhile: called again and again while it lasts; what it raises ends the work.

    Returns the steps of the inherited ones, the newest first. Raises OSError when the disk has no room.
    """
    if own.published():
        return []
    found = next(filter(None, (ancestor.published() for ancestor in ancestors)), [])[-_NEWEST:]
    for checkpoint in reversed(found):
        staging, target = own.staging(checkpoint.step), own.checkpoint(checkpoint.step)
        link_checkpoint(checkpoint, staging, target, meanwhile=meanwhile)
    return [checkpoint.step for checkpoint in reversed(found)]
