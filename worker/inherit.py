"""Gives the successor of a failed or cancelled run what that one saved, so that it goes on from there."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from server.db.session import Database
from server.db.tables import Run
from sparsify_core.manifest import publish
from sparsify_core.rundir import CheckpointDir, RunDir

_NEWEST = 2
"""The newest may turn out to be damaged: then the one before is what the trainer resumes from."""
_BLOCK_BYTES = 64 << 20


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

    Files are linked, not copied: a checkpoint is never changed in place. Whether one is intact the trainer finds out.

    Args:
        meanwhile: called again and again while it lasts. What it raises ends the work, and leaves nothing published
            that is not complete.

    Returns the steps of the inherited ones, the newest first. Raises OSError when the disk has no room.
    """
    if own.published():
        return []
    found = next(filter(None, (ancestor.published() for ancestor in ancestors)), [])[-_NEWEST:]
    for checkpoint in reversed(found):
        _inherit(checkpoint, own, meanwhile)
    return [checkpoint.step for checkpoint in reversed(found)]


def _inherit(checkpoint: CheckpointDir, own: RunDir, meanwhile: Callable[[], None]) -> None:
    staging = own.staging(checkpoint.step)
    staging.root.mkdir(parents=True)
    for source in sorted(checkpoint.root.rglob("*")):  # folders before what is in them
        target = staging.root / source.relative_to(checkpoint.root)
        if source.is_dir():
            target.mkdir()
        else:
            _link_or_copy(source, target, meanwhile)
    publish(staging, own.checkpoint(checkpoint.step))


def _link_or_copy(source: Path, target: Path, meanwhile: Callable[[], None]) -> None:
    meanwhile()
    try:
        os.link(source, target)
    except OSError:  # not every file system has links
        _copy(source, target, meanwhile)


def _copy(source: Path, target: Path, meanwhile: Callable[[], None]) -> None:
    with source.open("rb") as reader, target.open("wb") as writer:
        while block := reader.read(_BLOCK_BYTES):
            writer.write(block)
            writer.flush()
            os.fsync(writer.fileno())  # each block by itself: that of all gigabytes at once would outlast a lease
            meanwhile()
