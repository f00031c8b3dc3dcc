"""The sparse coders of a run, one per hookpoint and seed, each with its own bookkeeping."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from sparsify_core.config import RunConfig
from sparsify_core.errors import CheckpointError, ConfigError
from sparsify_core.formats.sparsify import load_coder
from sparsify_core.model.coder import SparseCoder


@dataclass
class Unit:
    """One coder. `name` is its hookpoint, or `hookpoint/seedN` when there are several seeds.

    `tokens_since_fired_M` (int64) counts the tokens of all processes.
    """

    name: str
    hookpoint: str
    coder: SparseCoder
    tokens_since_fired_M: Tensor


def build_units(
    config: RunConfig, widths: Mapping[str, tuple[int, int]], hookpoints: Sequence[str], device: torch.device
) -> list[Unit]:
    """Raises ConfigError when k does not fit the number of latents, which is known only now."""
    units = []
    for hookpoint in hookpoints:
        d_in, d_out = widths[hookpoint]
        check_latents(config, d_in, hookpoint)
        for seed in config.init_seeds:
            name = hookpoint if len(config.init_seeds) == 1 else f"{hookpoint}/seed{seed}"
            coder = SparseCoder(d_in, config.sae, d_out=d_out, seed=seed).to(device)
            counts = torch.zeros(coder.num_latents, dtype=torch.int64, device=device)
            units.append(Unit(name, hookpoint, coder, counts))
    return units


def load_weights(units: Sequence[Unit], checkpoint: Path) -> None:
    """Take the weights from the coders of a checkpoint directory. Raises CheckpointError when they do not fit."""
    for unit in units:
        directory = checkpoint / unit.name
        if not directory.is_dir():
            raise CheckpointError(f"finetune = {checkpoint} has no coder {unit.name}: give a folder that has one")
        weights = load_coder(directory).state_dict()
        own = unit.coder.state_dict()
        for name in sorted(own.keys() | weights.keys()):
            have = list(weights[name].shape) if name in weights else "nothing"
            want = list(own[name].shape) if name in own else "nothing"
            if have != want:
                raise CheckpointError(f"{directory} does not fit the configuration: {name} is {have}, expected {want}")
        unit.coder.load_state_dict(weights)


def check_latents(config: RunConfig, d_in: int, hookpoint: str) -> None:
    """The checks on SparseCoderConfig that need the width of the hookpoint."""
    num_latents = config.sae.resolve_num_latents(d_in)
    if config.sae.k > num_latents:
        raise ConfigError(
            f"k = {config.sae.k} is more than the {num_latents} latents of {hookpoint} (width {d_in}): "
            "lower k or raise expansion_factor"
        )
    if config.sae.multi_topk and 4 * config.sae.k > num_latents:
        raise ConfigError(
            f"multi_topk needs 4k = {4 * config.sae.k} latents, {hookpoint} (width {d_in}) has {num_latents}: "
            "lower k or raise expansion_factor"
        )
    if config.sae.activation == "groupmax" and num_latents % config.sae.k:
        raise ConfigError(
            f"groupmax needs a number of latents divisible by k = {config.sae.k}, {hookpoint} (width {d_in}) has "
            f"{num_latents}: change k or num_latents"
        )
