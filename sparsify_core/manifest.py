"""The manifest of a checkpoint: what it consists of, so that a damaged one is noticed. Torch-free."""

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

from sparsify_core.errors import CheckpointError
from sparsify_core.rundir import CheckpointDir

MANIFEST_VERSION = 1


def write_manifest(checkpoint: CheckpointDir, *, step: int, tokens_seen: int, config_sha256: str) -> None:
    """Flush every file below `checkpoint` to the disk, then write the manifest that lists them, flushed as well."""
    files: dict[str, dict[str, Any]] = {}
    for path in sorted(p for p in checkpoint.root.rglob("*") if p.is_file()):
        _fsync(path)
        files[path.relative_to(checkpoint.root).as_posix()] = {
            "size_bytes": path.stat().st_size,
            "sha256": file_sha256(path),
        }
    manifest = {
        "version": MANIFEST_VERSION,
        "step": step,
        "tokens_seen": tokens_seen,
        "config_sha256": config_sha256,
        "files": files,
    }
    checkpoint.manifest.write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    _fsync(checkpoint.manifest)
    for directory in [checkpoint.root, *(p for p in checkpoint.root.rglob("*") if p.is_dir())]:
        _fsync(directory)


def publish(staging: CheckpointDir, target: CheckpointDir) -> None:
    """Give a complete checkpoint its final name, which also survives a power cut.

    A checkpoint of the same step, written by an attempt that this one repeats, is replaced.
    """
    if target.root.exists():
        delete_checkpoint(target)
    staging.root.rename(target.root)
    _fsync(target.root.parent)


def delete_checkpoint(checkpoint: CheckpointDir) -> None:
    """Delete a checkpoint. Its manifest goes first, so a kill in the middle leaves nothing that looks valid."""
    checkpoint.manifest.unlink(missing_ok=True)
    shutil.rmtree(checkpoint.root)


def read_manifest(checkpoint: CheckpointDir) -> dict[str, Any]:
    """Raises CheckpointError when the manifest is missing or not of a version that we know."""
    try:
        manifest: dict[str, Any] = json.loads(checkpoint.manifest.read_text(encoding="utf-8"))
        version = manifest["version"]
    except FileNotFoundError as error:
        raise CheckpointError(f"{checkpoint.root} is not a checkpoint: it has no manifest.json") from error
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"the manifest of checkpoint {checkpoint.root.name} is damaged: {error}") from error
    if version != MANIFEST_VERSION:
        raise CheckpointError(
            f"checkpoint {checkpoint.root.name} has manifest version {version}, this program reads {MANIFEST_VERSION}: "
            "upgrade it"
        )
    return manifest


def verify_checkpoint(checkpoint: CheckpointDir) -> dict[str, Any]:
    """Compare every listed file's size and sha256 with the disk; return the manifest.

    Raises CheckpointError naming the first file that is missing or differs.
    """
    manifest = read_manifest(checkpoint)
    for name, expected in manifest["files"].items():
        path = checkpoint.root / name
        if not path.is_file():
            raise CheckpointError(f"checkpoint {checkpoint.root.name} is damaged: {name} is missing")
        if path.stat().st_size != expected["size_bytes"] or file_sha256(path) != expected["sha256"]:
            raise CheckpointError(f"checkpoint {checkpoint.root.name} is damaged: {name} is not what was saved")
    return manifest


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
