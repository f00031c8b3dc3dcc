"""The sparse coders that a process trains, one per hookpoint and seed, each with its own bookkeeping."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from sparsify_core.config import RunConfig
from sparsify_core.errors import CheckpointError, ConfigError
from sparsify_core.formats.sparsify import load_coder
from sparsify_core.kernels.dispatch import choose_coder
from sparsify_core.model.coder import SparseCoder
from sparsify_core.train.placement import CoderSpec


@dataclass
class Unit:
    """One coder, named as in its CoderSpec. `tokens_since_fired_M` (int64) counts the tokens of all processes."""

    name: str
    hookpoint: str
    coder: SparseCoder
    tokens_since_fired_M: Tensor


def build_units(config: RunConfig, specs: Sequence[CoderSpec], device: torch.device) -> list[Unit]:
    """The coders that this process trains, initialized from their seeds."""
    units = []
    for spec in specs:
        coder = SparseCoder(spec.d_in, config.sae, d_out=spec.d_out, seed=spec.seed).to(device)
        coder.straight_through = config.upstream_compat
        coder.trains_fast = _trains_fast(config, device)
        counts = torch.zeros(coder.num_latents, dtype=torch.int64, device=device)
        units.append(Unit(spec.name, spec.hookpoint, coder, counts))
    return units


def _trains_fast(config: RunConfig, device: torch.device) -> bool:
    """Raises ConfigError where bfloat16 is asked for and cannot be had."""
    choice = choose_coder(device, config.coder_dtype)
    if config.coder_dtype == "bfloat16" and not choice.is_kernel:
        raise ConfigError(f"coder_dtype = bfloat16 needs CUDA that computes in it, but {choice.why}: use auto")
    return choice.is_kernel


def load_weights(units: Sequence[Unit], checkpoint: Path) -> None:
    """Take the weights from the coders of a checkpoint directory. Raises CheckpointError when they do not fit."""
    for unit in units:
        directory = checkpoint / unit.name
        loaded = load_coder(directory)
        if loaded.is_transcoder != unit.coder.is_transcoder:
            kind = "a transcoder" if loaded.is_transcoder else "an autoencoder"
            raise CheckpointError(f"{directory} holds {kind}: set transcode to {str(loaded.is_transcoder).lower()}")
        weights = loaded.state_dict()
        own = unit.coder.state_dict()
        if "threshold" in own:  # measured at every checkpoint; weights of another kind of coder have none
            weights.setdefault("threshold", own["threshold"])
        for name in sorted(own.keys() | weights.keys()):
            have = list(weights[name].shape) if name in weights else "nothing"
            want = list(own[name].shape) if name in own else "nothing"
            if have != want:
                raise CheckpointError(f"{directory} does not fit the configuration: {name} is {have}, expected {want}")
        unit.coder.load_state_dict(weights)
