"""Gives the successor of a failed or cancelled run what that one saved, so that it goes on from there."""

from server.db.session import Database
from server.db.tables import Run
from server.settings import Settings
from sparsify_core.linking import link_checkpoint
from sparsify_core.rundir import CheckpointDir

_NEWEST = 2
"""The newest may turn out to be damaged: then the one before is what the trainer resumes from."""


def inherit_checkpoints(database: Database, settings: Settings, run: Run) -> list[int]:
    """Put the newest checkpoints of the run that `run` retries into its folder, unless it has some of its own.

    Whether one is intact the trainer finds out.

    Returns the steps of the inherited ones, the newest first. Raises OSError when the disk has no room.
    """
    own = settings.run_dir(run.id)
    if run.retry_of is None or own.published():
        return []
    found = _saved_by_ancestors(database, settings, run.retry_of)[-_NEWEST:]
    for checkpoint in reversed(found):
        link_checkpoint(checkpoint, own.staging(checkpoint.step), own.checkpoint(checkpoint.step))
    return [checkpoint.step for checkpoint in reversed(found)]


def _saved_by_ancestors(database: Database, settings: Settings, run_id: str | None) -> list[CheckpointDir]:
    """Of the nearest ancestor that has saved anything."""
    while run_id is not None:
        found = settings.run_dir(run_id).published()
        if found:
            return found
        with database.read() as session:
            run = session.get(Run, run_id)
        run_id = run.retry_of if run else None
    return []
