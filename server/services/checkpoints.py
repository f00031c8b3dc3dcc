"""The checkpoints of a run: rows, files, downloads and the look inside."""

import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlmodel import Session, col, select

from server.db.tables import Checkpoint
from server.errors import NotFoundError
from server.services.lookup import get_row
from server.settings import Settings
from sparsify_core.errors import CheckpointError
from sparsify_core.manifest import read_manifest
from sparsify_core.rundir import CheckpointDir

if TYPE_CHECKING:  # numpy costs 25 MB that a server without visitors of this page does not need
    from sparsify_core.inspect.read import Inspection

_CACHED_INSPECTIONS = 4


@dataclass(frozen=True)
class FileEntry:
    """One file of a checkpoint; `path` is relative to it."""

    path: str
    size_bytes: int
    sha256: str


def list_checkpoints(session: Session, run_id: str) -> list[Checkpoint]:
    """The checkpoints of a run, the newest step first."""
    return list(
        session.exec(select(Checkpoint).where(Checkpoint.run_id == run_id).order_by(col(Checkpoint.step).desc()))
    )


def get_checkpoint(session: Session, checkpoint_id: str) -> Checkpoint:
    """Raises NotFoundError."""
    return get_row(session, Checkpoint, checkpoint_id, "checkpoint")


def directory(settings: Settings, checkpoint: Checkpoint) -> CheckpointDir:
    """Where a checkpoint lies. Raises NotFoundError when its files were deleted."""
    root = settings.run_dir(checkpoint.run_id).root
    found = CheckpointDir(root / checkpoint.path)
    if not found.root.resolve().is_relative_to(root.resolve()) or not found.manifest.is_file():
        raise NotFoundError(f"The files of the checkpoint of step {checkpoint.step} are gone.")
    return found


def files(settings: Settings, checkpoint: Checkpoint) -> list[FileEntry]:
    """What the manifest lists. Raises NotFoundError when the files are gone, CheckpointError when it is damaged."""
    listed = _listed(directory(settings, checkpoint))
    return [FileEntry(name, entry["size_bytes"], entry["sha256"]) for name, entry in listed.items()]


def file_path(settings: Settings, checkpoint: Checkpoint, relative: str) -> Path:
    """Path of a file that the manifest lists, or of the manifest itself; nothing else in the folder can be read."""
    folder = directory(settings, checkpoint)
    path = folder.root / relative
    if relative != folder.manifest.name and relative not in _listed(folder):
        raise NotFoundError("The checkpoint has no such file.")
    if not path.resolve().is_relative_to(folder.root.resolve()) or not path.is_file():
        raise NotFoundError("The checkpoint has no such file.")
    return path


def coders(settings: Settings, checkpoint: Checkpoint) -> list[str]:
    """Names of the sparse coders in a checkpoint: the folders that have weights."""
    names = (entry.path.removesuffix("/sae.safetensors") for entry in files(settings, checkpoint))
    return sorted({name for name in names if not name.endswith((".json", ".safetensors"))})


def inspection(settings: Settings, checkpoint: Checkpoint, coder: str) -> "Inspection":
    """The latents of a coder on the held-out text. Raises CheckpointError when it was not collected."""
    from sparsify_core.inspect.read import load_inspection  # numpy: see above

    if coder not in coders(settings, checkpoint):
        raise NotFoundError("The checkpoint has no such sparse coder.")
    folder = directory(settings, checkpoint)
    key = (checkpoint.manifest_sha256, checkpoint.id, coder)
    with _lock:
        if key not in _inspections:
            _inspections[key] = load_inspection(folder.coder(coder).root, folder.tokens)
            while len(_inspections) > _CACHED_INSPECTIONS:
                _inspections.popitem(last=False)
        _inspections.move_to_end(key)
        return _inspections[key]


_lock = threading.Lock()
_inspections: OrderedDict[tuple[str, str, str], "Inspection"] = OrderedDict()


def _listed(folder: CheckpointDir) -> dict[str, dict[str, Any]]:
    listed = read_manifest(folder).get("files")
    if not isinstance(listed, dict):
        raise CheckpointError(f"the manifest of checkpoint {folder.root.name} lists no files")
    return listed
