"""A cache on disk: where everything lies, and what its manifest says.

```
DIR/<key>/manifest.json            what it holds and how much of it is written: it is complete when all sequences are
DIR/<key>/sequences.bin            16 bytes per sequence (identity.sequence_digests), in the order of the rows below
DIR/<key>/layers.3.output.bin      (num_sequences, length, width) in the model's own format, raw, little-endian
DIR/<key>/layers.3.input.bin       the same of the module's input, for transcoders
DIR/<key>/lock                     held by the process that writes
```
Every token of every sequence is there, so rules about tokens that do not count need no cache of their own.
"""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, ValidationError

from sparsify_core.activation_cache.identity import DIGEST_BYTES


class ArraySpec(BaseModel):
    """One file of activations: its rows' width and torch dtype."""

    model_config = ConfigDict(frozen=True)

    width: int
    dtype: Literal["float32", "bfloat16", "float16"]

    @property
    def torch_dtype(self) -> torch.dtype:
        dtype: torch.dtype = getattr(torch, self.dtype)
        return dtype

    @property
    def row_bytes(self) -> int:
        """Bytes of one token."""
        return self.width * self.torch_dtype.itemsize


class Manifest(BaseModel):
    """What a cache holds. `model` and `revision` are for people; `model_sha256` decides."""

    model_config = ConfigDict(frozen=True)

    version: Literal[1] = 1
    model: str
    revision: str | None
    model_sha256: str
    length: int
    num_sequences: int
    num_written: int = 0
    arrays: Mapping[str, ArraySpec]

    @property
    def size_bytes(self) -> int:
        """Of all activations when they are written."""
        return sum(self.array_bytes(name) for name in self.arrays)

    @property
    def num_tokens(self) -> int:
        return self.num_sequences * self.length

    @property
    def hookpoints(self) -> list[str]:
        """In the order of the files."""
        return list(dict.fromkeys(name.rpartition(".")[0] for name in self.arrays))

    def sequence_bytes(self, array: str) -> int:
        """Bytes of one sequence in a file."""
        return self.length * self.arrays[array].row_bytes

    def array_bytes(self, array: str) -> int:
        """Bytes of a complete file."""
        return self.num_sequences * self.sequence_bytes(array)

    def key(self, digests: list[bytes]) -> str:
        """Name of the cache's folder: the same for the same content."""
        content = self.model_dump_json(exclude={"model", "revision", "num_written"}).encode()
        return hashlib.sha256(content + b"".join(digests)).hexdigest()[:16]


def array_name(hookpoint: str, kind: str) -> str:
    """`kind` is input or output."""
    return f"{hookpoint}.{kind}"


@dataclass(frozen=True)
class CacheDir:
    """The folder of one cache."""

    root: Path

    @property
    def manifest(self) -> Path:
        return self.root / "manifest.json"

    @property
    def lock(self) -> Path:
        return self.root / "lock"

    @property
    def _digests(self) -> Path:
        return self.root / "sequences.bin"

    def array(self, name: str) -> Path:
        return self.root / f"{name}.bin"

    def read_manifest(self) -> Manifest | None:
        """None when there is none of this version, or when a file is not as long as it says."""
        try:
            manifest = Manifest.model_validate_json(self.manifest.read_bytes())
            is_whole = self._digests.stat().st_size == manifest.num_sequences * DIGEST_BYTES and all(
                self.array(name).stat().st_size == manifest.array_bytes(name) for name in manifest.arrays
            )
        except (OSError, ValidationError):
            return None
        return manifest if is_whole else None

    def write_manifest(self, manifest: Manifest) -> None:
        """Replace it as a whole: whatever happens, the old one or the new one is there."""
        staging = self.root / "manifest.json.tmp"
        with staging.open("w", encoding="utf-8") as file:
            file.write(manifest.model_dump_json(indent=1))
            file.flush()
            os.fsync(file.fileno())
        staging.replace(self.manifest)

    def read_digests(self) -> list[bytes]:
        content = self._digests.read_bytes()
        return [content[start : start + DIGEST_BYTES] for start in range(0, len(content), DIGEST_BYTES)]

    def write_digests(self, digests: list[bytes]) -> None:
        with self._digests.open("wb") as file:
            file.write(b"".join(digests))
            file.flush()
            os.fsync(file.fileno())


def raw_bytes(values: torch.Tensor) -> memoryview:
    """The bytes of a contiguous tensor on the CPU, to be read or written in place."""
    view: Any = values.view(torch.uint8).numpy()  # of a format that NumPy may not have
    return memoryview(view).cast("B")


def format_size(size_bytes: int) -> str:
    """`2.3 GiB`; in MiB below one GiB, with one decimal."""
    return f"{size_bytes / 2**30:.1f} GiB" if size_bytes >= 2**30 else f"{size_bytes / 2**20:.1f} MiB"
