"""`cache_activations`: find the run's activations on disk, or put them there, before training starts."""

import time
from contextlib import closing, nullcontext
from pathlib import Path
from typing import BinaryIO

import torch

from sparsify_core.activation_cache.demand import Demand, array_specs, demand_of
from sparsify_core.activation_cache.layout import CacheDir, Manifest, format_size
from sparsify_core.activation_cache.read import Reader
from sparsify_core.activation_cache.write import Writer, describe, lock, prepare
from sparsify_core.capture.forward import ActivationTap
from sparsify_core.config import RunConfig
from sparsify_core.data.sequences import Sequences
from sparsify_core.errors import ConfigError, DataError
from sparsify_core.train.distributed import Group
from sparsify_core.train.report import Reporter, duration
from sparsify_core.train.stop import StopRequest

_COMMIT_S = 10.0
"""How often what is written is flushed and counted: what a killed process loses at most."""

_POLL_S = 1.0


class Caching:
    """The activations of a run's training sequences on disk, below `folder`. All processes make and call it
    together.
    """

    def __init__(
        self, config: RunConfig, folder: Path, tap: ActivationTap, group: Group, reporter: Reporter, stop: StopRequest
    ) -> None:
        self._config = config
        self._folder = folder
        self._tap = tap
        self._group = group
        self._reporter = reporter
        self._stop = stop
        self._arrays = array_specs(tap, group.device)

    def provide(self, sequences: Sequences, max_token_id: int) -> Reader | None:
        """The activations of the training sequences, from a cache that fits, or that is written first.

        Args:
            max_token_id: exclusive bound of token ids.

        Returns:
            None when a stop was asked for; what is written by then need not be written again.

        Raises DataError for tokens of another model, DiskFullError when there is no room, ConfigError when `folder`
        cannot be written.
        """
        self._reporter.phase("looking for cached activations", detail=str(self._folder))
        demand = demand_of(self._config, self._tap, self._arrays, sequences, max_token_id)
        with self._stop.listening():
            cache = self._complete_cache(demand, sequences)
        if cache is None:
            return None
        with self._group.failing_together():
            have, slots = cache.read_manifest(), demand.slots(cache)
            if have is None or slots is None:
                raise DataError(f"{cache.root} is not seen by process {self._group.rank}: all need the same folder")
            size = self._config.batch_size
            reader = Reader(
                cache,
                have,
                demand.manifest,
                slots,
                size=size,
                stride=size * self._group.world_size,
                device=self._group.device,
            )
        self._reporter.phase("using cached activations", detail=str(cache.root))
        return reader

    def _complete_cache(self, demand: Demand, sequences: Sequences) -> CacheDir | None:
        """Find it, write it, or wait while another run writes it."""
        own = CacheDir(self._folder / demand.manifest.key(demand.digests))
        is_waiting = False
        while True:
            found, held = self._find_or_lock(demand, own)
            if found is not None:
                return found
            if self._group.any(held is not None):
                with held or nullcontext():
                    return own if self._write(own, demand, sequences) else None
            if not is_waiting:
                self._reporter.phase("waiting for another run to cache the activations", detail=str(own.root))
                is_waiting = True
            if self._group.any(bool(self._stop)):
                return None
            time.sleep(_POLL_S)

    def _find_or_lock(self, demand: Demand, own: CacheDir) -> tuple[CacheDir | None, BinaryIO | None]:
        """Rank 0 looks; the lock is its own, what it found is everybody's."""
        name, held = None, None
        with self._group.failing_together():
            if self._group.is_main:
                try:
                    name = demand.find(self._folder)
                    held = lock(own) if name is None else None
                except OSError as error:
                    message = f"cache_activations = {self._folder} cannot be used: {error.strerror}"
                    raise ConfigError(message) from error
        name, *_ = self._group.gather(name)
        return (None if name is None else CacheDir(self._folder / name)), held

    def _write(self, cache: CacheDir, demand: Demand, sequences: Sequences) -> bool:
        """Write what is missing, in batches that go round the processes as those of training do. Returns whether it is
        complete; False: a stop was asked for.
        """
        group, manifest, size, num_written = self._group, demand.manifest, self._config.batch_size, 0
        with group.failing_together():
            if group.is_main:
                num_written = prepare(cache, demand)
        num_written, *_ = group.gather(num_written)
        detail = f"{describe(manifest)} {format_size(manifest.size_bytes)}"
        self._reporter.phase("caching activations", detail=detail)
        with group.failing_together():
            writer = Writer(cache, manifest)
        with closing(writer):
            progress = _Progress(cache, manifest, writer, group, self._reporter, num_written)
            for start in range(num_written, manifest.num_sequences, size * group.world_size):
                if group.any(bool(self._stop)):
                    progress.commit(start)
                    return False
                if progress.is_due():
                    progress.commit(start)
                first = start + group.rank * size
                if first < manifest.num_sequences:
                    ids = torch.from_numpy(sequences.rows.take(demand.rows[first : first + size]))
                    writer.add(self._tap, ids.to(group.device), first)
            progress.commit(manifest.num_sequences)
        return True


class _Progress:
    """Makes what was written count, and tells how far it is."""

    def __init__(
        self,
        cache: CacheDir,
        manifest: Manifest,
        writer: Writer,
        group: Group,
        reporter: Reporter,
        num_written: int,
    ) -> None:
        self._cache = cache
        self._manifest = manifest
        self._writer = writer
        self._group = group
        self._reporter = reporter
        self._at_start = num_written
        self._started = self._committed = time.monotonic()

    def is_due(self) -> bool:
        """By the clock of rank 0."""
        return self._group.any(self._group.is_main and time.monotonic() - self._committed >= _COMMIT_S)

    def commit(self, num_written: int) -> None:
        """From now on the first `num_written` sequences need not be written again. All processes call it together."""
        manifest = self._manifest
        with self._group.failing_together():
            self._writer.flush()
        with self._group.failing_together():
            if self._group.is_main:
                self._count(manifest.model_copy(update={"num_written": num_written}))
        self._committed = time.monotonic()
        if not self._group.is_main:
            return
        per_sequence_s = (self._committed - self._started) / max(1, num_written - self._at_start)
        left = duration((manifest.num_sequences - num_written) * per_sequence_s)
        tokens = f"{num_written * manifest.length:,} of {manifest.num_tokens:,} tokens"
        self._reporter.phase("caching activations", detail=f"{tokens}, ETA {left}")

    def _count(self, manifest: Manifest) -> None:
        try:
            self._cache.write_manifest(manifest)
        except FileNotFoundError as error:
            raise DataError(f"{self._cache.root} was deleted while it was written: start the run again") from error
