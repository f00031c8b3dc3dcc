"""The activations of training batches, read from a cache while the batches before them train."""

import os
from collections.abc import Collection, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from typing import BinaryIO

import torch
from torch import Tensor

from sparsify_core.activation_cache.layout import CacheDir, Manifest, array_name, raw_bytes
from sparsify_core.capture.forward import Consumer
from sparsify_core.data.rows import Indices
from sparsify_core.errors import DataError
from sparsify_core.timing import Span

_AHEAD = 2
"""Batches that are read ahead, each with the activations of all hookpoints."""

_THREADS = 8
_PART_BYTES = 8 << 20
"""What one thread reads at a time."""


class Reader:
    """Hands out what stands in for an ActivationTap: the same numbers, without a model.

    Files are read by several threads, straight into pinned memory: page faults of a memory map would hold them up, and
    a disk that fails is an exception instead of a signal.

    Args:
        have: the manifest of `cache`, which may hold more than is needed.
        want: the manifest of what is needed; its order of hookpoints is that of `run`.
        slots: the places in the cache of the training sequences, epoch after epoch.
        size: sequences per batch.
        stride: from a batch of this process to its next one, in training sequences.
        device: where the activations are wanted.
    """

    def __init__(
        self,
        cache: CacheDir,
        have: Manifest,
        want: Manifest,
        slots: Indices,
        *,
        size: int,
        stride: int,
        device: torch.device,
    ) -> None:
        self._have = have
        self.hookpoints = want.hookpoints
        self._slots = slots
        self._size = size
        self._stride = stride
        self._device = device
        self._open = ExitStack()
        self._files: dict[str, BinaryIO] = {
            name: self._open.enter_context(cache.array(name).open("rb", buffering=0)) for name in want.arrays
        }
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]
        self._threads = self._open.enter_context(ThreadPoolExecutor(_THREADS))
        self._loader = self._open.enter_context(ThreadPoolExecutor(1))
        self._loads: dict[int, Future[_Loaded]] = {}

    def close(self) -> None:
        """Stop reading ahead and close the files."""
        self._loader.shutdown(wait=False, cancel_futures=True)
        self._open.close()

    def at(self, start: int) -> "CachedBatch":
        """The batch that begins with training sequence `start`. Nothing is read yet."""
        return CachedBatch(self, start)

    def read(self, start: int) -> dict[str, Tensor]:
        """Rows (N, D) by name of file, on the device, and start to read the batches behind.

        Raises DataError or OSError when the cache cannot be read.
        """
        soon = range(start, len(self._slots), self._stride)[: 1 + _AHEAD]
        for number in self._loads.keys() - set(soon):
            self._loads.pop(number).cancel()
        for number in soon:
            if number not in self._loads:
                slots = self._slots[number : number + self._size]
                self._loads[number] = self._loader.submit(self._load, slots)
        return self._loads.pop(start).result().on_device()

    def _load(self, slots: Indices) -> "_Loaded":
        """Runs in the loader's thread: from the disk to the device."""
        # Streams and devices are chosen thread by thread; this chooses both.
        with nullcontext() if self._stream is None else torch.cuda.stream(self._stream):
            reading = {name: self._read(name, slots) for name in self._files}
            for _, parts in reading.values():
                for part in parts:
                    part.result()
            arrays = {name: rows_ND for name, (rows_ND, _) in reading.items()}
            if self._stream is None:
                return _Loaded(arrays, None)
            arrays = {name: rows_ND.to(self._device, non_blocking=True) for name, rows_ND in arrays.items()}
            copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
            copied.record()
            return _Loaded(arrays, copied)

    def _read(self, name: str, slots: Indices) -> tuple[Tensor, list[Future[None]]]:
        """Rows (N, D) of the sequences `slots` in a file, and what is still reading them."""
        spec, sequence_bytes = self._have.arrays[name], self._have.sequence_bytes(name)
        num_rows = len(slots) * self._have.length
        rows_ND = torch.empty(num_rows, spec.width, dtype=spec.torch_dtype, pin_memory=self._stream is not None)
        content = raw_bytes(rows_ND)
        parts = []
        for first, count in _runs(slots, max(1, _PART_BYTES // sequence_bytes)):
            target = content[first * sequence_bytes : (first + count) * sequence_bytes]
            parts.append(self._threads.submit(_fill, self._files[name], target, int(slots[first]) * sequence_bytes))
        return rows_ND, parts


@dataclass(frozen=True)
class CachedBatch:
    """One batch as an ActivationSource."""

    reader: Reader
    start: int

    def run(
        self,
        input_ids: Tensor,
        consumer: Consumer,
        *,
        only: Collection[str] | None = None,
        keeps_dtype: bool = False,
    ) -> None:
        """As `ActivationTap.run`; the ids are not looked at. Raises DataError or OSError when nothing can be read."""
        with Span("data"):
            arrays = self.reader.read(self.start)
        for hookpoint in self.reader.hookpoints:
            names = [array_name(hookpoint, kind) for kind in ("output", "input")]
            rows = [arrays.pop(name) for name in names if name in arrays]
            if only is None or hookpoint in only:
                rows = rows if keeps_dtype else [values.float() for values in rows]
                consumer(hookpoint, rows[-1], rows[0])


@dataclass(frozen=True)
class _Loaded:
    """Rows by name of file; `copied` None: there was no copy to wait for."""

    arrays: dict[str, Tensor]
    copied: torch.cuda.Event | None

    def on_device(self) -> dict[str, Tensor]:
        """The rows, in the order of the current stream."""
        if self.copied is not None:
            self.copied.wait()
            for values in self.arrays.values():
                values.record_stream(torch.cuda.current_stream())
        return self.arrays


def _runs(slots: Indices, most: int) -> Iterator[tuple[int, int]]:
    """Cut `slots` into (first, count) of at most `most` that lie one behind the other on the disk."""
    first = 0
    for end in range(1, len(slots) + 1):
        if end == len(slots) or slots[end] != slots[end - 1] + 1 or end - first == most:
            yield first, end - first
            first = end


def _fill(file: BinaryIO, target: memoryview, offset: int) -> None:
    while target:
        count = os.preadv(file.fileno(), [target], offset)
        if not count:
            raise DataError(f"{file.name} became shorter while it was read: delete its folder, and it is written again")
        target, offset = target[count:], offset + count
