"""Fill a cache: every process runs the model on its share of the sequences and writes it into the same files."""

import fcntl
import os
import shutil
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from typing import BinaryIO

import torch
from torch import Tensor

from sparsify_core.activation_cache.demand import Demand
from sparsify_core.activation_cache.layout import CacheDir, Manifest, array_name, format_size, raw_bytes
from sparsify_core.capture.forward import ActivationTap
from sparsify_core.errors import DiskFullError

_THREADS = 4
_BATCHES_UNDER_WAY = 2
"""Batches whose activations wait in memory for the disk."""


def lock(cache: CacheDir) -> BinaryIO | None:
    """The right to write `cache`, which ends when the file is closed or the process dies; None: another has it."""
    cache.root.mkdir(parents=True, exist_ok=True)
    file = cache.lock.open("wb")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file


def prepare(cache: CacheDir, demand: Demand) -> int:
    """Lay the files out, or go on with those of a write that was broken off. Returns the sequences that are written.

    Raises DiskFullError when the rest does not fit on the disk.
    """
    want = demand.manifest
    have = cache.read_manifest()
    is_same = have is not None and have.key([]) == want.key([]) and cache.read_digests() == demand.digests
    paths = [cache.array(name) for name in want.arrays]
    on_disk = sum(path.stat().st_blocks * 512 for path in paths if path.exists()) if is_same else 0
    free = shutil.disk_usage(cache.root).free
    if want.size_bytes - on_disk > free:
        raise DiskFullError(
            f"{describe(want)} {format_size(want.size_bytes)}, but the disk of {cache.root} has only "
            f"{format_size(free)} free: cache them on another disk, or train on fewer tokens or hookpoints"
        )
    if have is not None and is_same:
        return have.num_written
    cache.manifest.unlink(missing_ok=True)  # first, so that nothing counts while the files change
    for name, path in zip(want.arrays, paths, strict=True):
        with path.open("wb") as file:
            file.truncate(want.array_bytes(name))
    cache.write_digests(demand.digests)
    cache.write_manifest(want)
    return 0


def describe(manifest: Manifest) -> str:
    """`activations of 2 hookpoints x 1,000,000 tokens take`, to be followed by a size."""
    number = len(manifest.hookpoints)
    return f"activations of {number} hookpoint{'s' * (number != 1)} x {manifest.num_tokens:,} tokens take"


class Writer:
    """Writes activations into the files of a cache that `prepare` laid out, behind the model's back: `add` returns
    before they are on the disk, `flush` when they are.
    """

    def __init__(self, cache: CacheDir, manifest: Manifest) -> None:
        self._manifest = manifest
        self._open = ExitStack()
        self._files = {
            name: os.fdopen(os.open(cache.array(name), os.O_WRONLY), "wb", buffering=0) for name in manifest.arrays
        }
        for file in self._files.values():
            self._open.enter_context(file)
        self._threads = self._open.enter_context(ThreadPoolExecutor(_THREADS))
        self._under_way: deque[list[Future[None]]] = deque()
        self._done: list[Future[None]] = []

    def add(self, tap: ActivationTap, input_ids: Tensor, first: int) -> None:
        """Run the model on `input_ids` (B, L), the sequences from number `first` on."""
        batch: list[Future[None]] = []

        def keep(hookpoint: str, x_ND: Tensor, y_NE: Tensor) -> None:
            batch.append(self._store(array_name(hookpoint, "output"), y_NE, first))
            if x_ND is not y_NE:
                batch.append(self._store(array_name(hookpoint, "input"), x_ND, first))

        tap.run(input_ids, keep, keeps_dtype=True)
        self._under_way.append(batch)
        if len(self._under_way) > _BATCHES_UNDER_WAY:
            done = self._under_way.popleft()
            wait(done)  # what failed is raised by flush, where the processes meet
            self._done += done

    def flush(self) -> None:
        """Wait until everything is on the disk. Raises OSError for what could not be written."""
        for future in [*self._done, *(future for batch in self._under_way for future in batch)]:
            future.result()
        self._done.clear()
        self._under_way.clear()
        for file in self._files.values():
            os.fsync(file.fileno())

    def close(self) -> None:
        self._open.close()

    def _store(self, array: str, values_ND: Tensor, first: int) -> Future[None]:
        """A copy at once, because later modules may write into the tensor; the disk later."""
        copied = None
        host_ND = torch.empty(values_ND.shape, dtype=values_ND.dtype, pin_memory=values_ND.is_cuda)
        host_ND.copy_(values_ND, non_blocking=True)
        if values_ND.is_cuda:
            copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
            copied.record()
        offset = first * self._manifest.sequence_bytes(array)
        return self._threads.submit(_write, self._files[array].fileno(), host_ND, copied, offset)


def _write(descriptor: int, values_ND: Tensor, copied: torch.cuda.Event | None, offset: int) -> None:
    if copied is not None:
        copied.synchronize()
    content = raw_bytes(values_ND)
    while content:  # one call writes at most 2 GiB
        written = os.pwrite(descriptor, content, offset)
        content, offset = content[written:], offset + written
