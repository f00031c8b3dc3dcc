"""A second place for a checkpoint, which takes no room of its own. Torch-free."""

import os
import shutil
from pathlib import Path

from sparsify_core.manifest import publish
from sparsify_core.rundir import CheckpointDir


def link_checkpoint(source: CheckpointDir, staging: CheckpointDir, target: CheckpointDir) -> None:
    """Publish the files of `source` as `target` too, by way of `staging`, a folder beside it.

    Files are linked, not copied: a checkpoint is never changed in place. Either may be deleted without the other.
    Raises OSError when the disk has no room, or a file of `source` is gone.
    """
    shutil.rmtree(staging.root, ignore_errors=True)
    shutil.copytree(source.root, staging.root, copy_function=_link_or_copy)
    publish(staging, target)


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(Path(source), target)
    except OSError:  # not every file system has links
        shutil.copy2(source, target)
