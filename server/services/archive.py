"""A checkpoint as one zip file, made while it is sent: constant memory, nothing on the disk."""

import zipfile
from collections.abc import Iterator
from io import RawIOBase
from pathlib import Path
from typing import Any

from server.db.tables import Checkpoint
from server.services.checkpoints import directory, file_path, files
from server.settings import Settings

_BLOCK_BYTES = 1 << 20


class _Sink(RawIOBase):
    """Collects what zipfile writes until it is taken; cannot seek, so sizes follow the data."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._parts.append(bytes(data))
        return len(data)

    def take(self) -> bytes:
        taken = b"".join(self._parts)
        self._parts.clear()
        return taken


def zip_stream(settings: Settings, checkpoint: Checkpoint) -> Iterator[bytes]:
    """Every file of the checkpoint and its manifest below one folder, uncompressed: weights do not compress.

    Raises NotFoundError at once, not in the middle, when the files are gone.
    """
    names = [entry.path for entry in files(settings, checkpoint)]
    names.append(directory(settings, checkpoint).manifest.name)
    paths = {name: file_path(settings, checkpoint, name) for name in names}
    return _stream(f"step-{checkpoint.step:08d}", paths)


def _stream(folder: str, paths: dict[str, Path]) -> Iterator[bytes]:
    sink = _Sink()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for name, path in paths.items():
            info = zipfile.ZipInfo.from_file(path, f"{folder}/{name}", strict_timestamps=False)
            with path.open("rb") as source, archive.open(info, "w", force_zip64=info.file_size > 2**31 - 1) as target:
                while block := source.read(_BLOCK_BYTES):
                    target.write(block)
                    yield sink.take()
    yield sink.take()
