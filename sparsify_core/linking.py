"""A second place for a checkpoint, which takes no room of its own. Torch-free."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from sparsify_core.manifest import publish
from sparsify_core.rundir import CheckpointDir

_BLOCK_BYTES = 64 << 20


def link_checkpoint(
    source: CheckpointDir,
    staging: CheckpointDir,
    target: CheckpointDir,
    *,
    meanwhile: Callable[[], None] = lambda: None,
) -> None:
    """Publish the files of `source` as `target` too, by way of `staging`, a folder beside it.

    Files are linked, not copied: a checkpoint is never changed in place. Either may be deleted without the other.

    Args:
        meanwhile: called again and again while it lasts. What it raises ends the work, and nothing is published.

    Raises OSError when the disk has no room, or a file of `source` is gone.
    """
    shutil.rmtree(staging.root, ignore_errors=True)
    staging.root.mkdir(parents=True)
    for found in sorted(source.root.rglob("*")):  # folders before what is in them
        place = staging.root / found.relative_to(source.root)
        if found.is_dir():
            place.mkdir()
        else:
            _link_or_copy(found, place, meanwhile)
    publish(staging, target)


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
