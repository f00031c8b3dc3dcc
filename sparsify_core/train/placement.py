"""Which coders a run has, and which process trains which of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sparsify_core.config import RunConfig
from sparsify_core.errors import ConfigError


@dataclass(frozen=True)
class CoderSpec:
    """What a coder will be. `name` is its hookpoint, or `hookpoint/seedN` when there are several seeds."""

    name: str
    hookpoint: str
    seed: int
    d_in: int
    d_out: int
    num_latents: int


@dataclass(frozen=True)
class Placement:
    """All coders of the run in order of hookpoints. `owners` (hookpoint -> rank) is None when every process trains
    every coder on its share of the data.
    """

    coders: tuple[CoderSpec, ...]
    owners: Mapping[str, int] | None

    def trained_by(self, rank: int) -> list[CoderSpec]:
        """The coders that process `rank` holds."""
        return [c for c in self.coders if self.owners is None or self.owners[c.hookpoint] == rank]

    def saved_by(self, rank: int) -> list[CoderSpec]:
        """The coders that process `rank` evaluates and writes: a replicated coder is rank 0's."""
        return self.trained_by(rank) if self.owners is not None or rank == 0 else []


def check_processes(config: RunConfig, world_size: int) -> None:
    """Raise ConfigError when `distribute_modules` would have no effect."""
    if config.distribute_modules and world_size == 1:
        raise ConfigError(
            "distribute_modules gives each process its own hookpoints, but there is only one process: start several "
            "with torchrun --nproc_per_node, or leave distribute_modules out"
        )


def place(
    config: RunConfig, widths: Mapping[str, tuple[int, int]], hookpoints: Sequence[str], world_size: int
) -> Placement:
    """Plan the coders of `hookpoints`, whose (input, output) widths are given.

    Raises ConfigError when k does not fit the number of latents, which is known only now, or when there are fewer
    hookpoints than processes under `distribute_modules`.
    """
    coders = []
    for hookpoint in hookpoints:
        d_in, d_out = widths[hookpoint]
        check_latents(config, d_in, hookpoint)
        for seed in config.init_seeds:
            name = hookpoint if len(config.init_seeds) == 1 else f"{hookpoint}/seed{seed}"
            coders.append(CoderSpec(name, hookpoint, seed, d_in, d_out, config.sae.resolve_num_latents(d_in)))
    if not config.distribute_modules:
        return Placement(tuple(coders), None)
    if len(hookpoints) < world_size:
        raise ConfigError(
            f"distribute_modules needs a hookpoint for each of the {world_size} processes, but there "
            f"{'is' if len(hookpoints) == 1 else 'are'} {len(hookpoints)}: start fewer processes, or choose more "
            "hookpoints"
        )
    work = {c.hookpoint: c.num_latents * (c.d_in + c.d_out) for c in coders}
    return Placement(tuple(coders), balance(work, world_size))


def balance(work: Mapping[str, int], num_ranks: int) -> dict[str, int]:
    """Hookpoint -> rank: the heaviest first, each to the rank with the least work so far.

    Needs at least as many hookpoints as ranks; none stays idle then. Rank 0 gets the first hookpoint, so what it
    reports about "the first coder" does not depend on the number of processes.
    """
    loads = [0] * num_ranks
    shares: list[list[str]] = [[] for _ in range(num_ranks)]
    for hookpoint in sorted(work, key=lambda name: -work[name]):
        rank = loads.index(min(loads))
        loads[rank] += work[hookpoint]
        shares[rank].append(hookpoint)
    order = {hookpoint: position for position, hookpoint in enumerate(work)}
    shares.sort(key=lambda share: min(order[hookpoint] for hookpoint in share))
    rank_of = {hookpoint: rank for rank, share in enumerate(shares) for hookpoint in share}
    return {hookpoint: rank_of[hookpoint] for hookpoint in work}


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
