"""What a run needs from a cache, and which cache has it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sparsify_core.activation_cache.identity import model_sha256, sequence_digests
from sparsify_core.activation_cache.layout import ArraySpec, CacheDir, Manifest, array_name
from sparsify_core.capture.forward import ActivationTap
from sparsify_core.config import RunConfig
from sparsify_core.data.rows import Indices, check_ids
from sparsify_core.data.sequences import Sequences
from sparsify_core.errors import ConfigError

_CHUNK = 1024
"""Sequences that are read at a time to tell them apart."""


@dataclass(frozen=True)
class Demand:
    """`manifest` is that of a cache with exactly what is needed. `rows` are the numbers of its sequences, in the order
    in which training first uses them; `positions` are the places in it of `Sequences.train`.
    """

    manifest: Manifest
    rows: Indices
    digests: list[bytes]
    positions: Indices

    def slots(self, cache: CacheDir) -> Indices | None:
        """The places in `cache` of the training sequences, epoch after epoch; None when it lacks some of them."""
        place = {digest: number for number, digest in enumerate(cache.read_digests())}
        slots = [place.get(digest) for digest in self.digests]
        return None if None in slots else np.array(slots, dtype=np.int64)[self.positions]

    def is_met_by(self, cache: CacheDir) -> bool:
        have = cache.read_manifest()
        if have is None or have.num_written < have.num_sequences:
            return False
        want = self.manifest
        is_same = (have.model_sha256, have.length) == (want.model_sha256, want.length)
        has_arrays = all(have.arrays.get(name) == spec for name, spec in want.arrays.items())
        return is_same and has_arrays and self.slots(cache) is not None

    def find(self, root: Path) -> str | None:
        """Name of a complete cache below `root` that has everything, be it more; None when there is none."""
        names = sorted(path.name for path in root.iterdir() if path.is_dir()) if root.is_dir() else []
        return next((name for name in names if self.is_met_by(CacheDir(root / name))), None)


def array_specs(tap: ActivationTap, device: torch.device) -> dict[str, ArraySpec]:
    """The files that the hookpoints of `tap` need, by name, found by one short forward.

    Raises ConfigError when a module's numbers have a format that cannot be stored.
    """
    found: dict[str, ArraySpec] = {}

    def note(hookpoint: str, x_ND: Tensor, y_NE: Tensor) -> None:
        found[array_name(hookpoint, "output")] = _spec(hookpoint, y_NE)
        if x_ND is not y_NE:
            found[array_name(hookpoint, "input")] = _spec(hookpoint, x_ND)

    tap.run(torch.zeros(1, 4, dtype=torch.int64, device=device), note, keeps_dtype=True)
    return found


def demand_of(
    config: RunConfig, tap: ActivationTap, arrays: Mapping[str, ArraySpec], sequences: Sequences, max_token_id: int
) -> Demand:
    """Read all training sequences once, to know them again.

    Raises DataError when a token id is `max_token_id` or more.
    """
    rows, first, inverse = np.unique(sequences.train, return_index=True, return_inverse=True)
    order = np.argsort(first)
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    rows = rows[order]
    digests: list[bytes] = []
    for start in range(0, len(rows), _CHUNK):
        tokens = sequences.rows.take(rows[start : start + _CHUNK])
        check_ids(config, tokens, max_token_id)
        digests += sequence_digests(tokens)
    manifest = Manifest(
        model=config.model,
        revision=config.revision,
        model_sha256=model_sha256(tap.model),
        length=sequences.rows.length,
        num_sequences=len(rows),
        arrays=arrays,
    )
    return Demand(manifest, rows, digests, place[inverse])


def _spec(hookpoint: str, values_ND: Tensor) -> ArraySpec:
    name = str(values_ND.dtype).removeprefix("torch.")
    if name not in ("float32", "bfloat16", "float16"):
        raise ConfigError(f"activations of {hookpoint} are {name}, which cannot be cached: leave cache_activations out")
    return ArraySpec(width=values_ND.shape[-1], dtype=name)
