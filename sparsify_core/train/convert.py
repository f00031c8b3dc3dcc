"""Turn a run of EleutherAI/sparsify into a run folder of ours that training goes on from."""

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from sparsify_core.config import RunConfig, SparseCoderConfig
from sparsify_core.errors import ConfigError
from sparsify_core.formats.sparsify import load_coder
from sparsify_core.formats.upstream_run import UpstreamState, read_state
from sparsify_core.model.coder import SparseCoder
from sparsify_core.rundir import CheckpointDir, RunDir
from sparsify_core.train.checkpoint import save_checkpoint
from sparsify_core.train.distributed import Group
from sparsify_core.train.optim import CoderOptimizer
from sparsify_core.train.state import save_numbers, save_tensors
from sparsify_core.train.units import Unit

_MAY_DIFFER = {"k", "multi_topk"}
"""Fields of a sparse coder that its weights and optimizer state do not depend on."""


def convert(
    source: Path, theirs: Mapping[str, Any], config: RunConfig, run_dir: RunDir, *, num_processes: int | None
) -> tuple[int, list[str]]:
    """Write `run_dir` with one checkpoint: upstream's coders as they are, and its training state.

    Args:
        theirs: what `read_config` made of upstream's configuration.
        config: the same with the user's changes.
        num_processes: that trained the run; None takes the number of files of counters.

    Returns the optimizer steps done, and one sentence about each thing that does not carry over. Raises CheckpointError
    when upstream's files do not fit together, ConfigError when the configuration does not fit them.
    """
    if run_dir.published() or run_dir.config.exists():
        raise ConfigError(f"{run_dir.root} already holds a run: give another RUN_DIR")
    _refuse_other_coders(theirs, config)
    coders = {name: load_coder(source / name) for name in _coder_names(config)}
    state = read_state(source, config.optimizer, coders)
    _refuse_unknown_k(theirs, config, state.num_steps)
    world_size = _world_size(state, num_processes)

    training_weights, optimizer = _restore(config, coders, state)
    units = [
        # Upstream counts the tokens of one process, we count those of all.
        Unit(name, name.partition("/")[0], coder, state.tokens_since_fired[name] * world_size)
        for name, coder in coders.items()
    ]

    def save_training_state(checkpoint: CheckpointDir) -> None:
        save_tensors(checkpoint, units, optimizer, training_weights, rank=0)
        save_numbers(checkpoint, [optimizer.scalars()], step=state.num_steps, world_size=world_size)

    sequences = state.num_steps * config.grad_acc_steps * config.batch_size * world_size
    save_checkpoint(
        run_dir,
        config,
        units,
        group=Group(config),
        step=state.num_steps,
        tokens_seen=sequences * config.ctx_len,
        save_training_state=save_training_state,
        evaluation=None,
        token_strings=(),
    )
    run_dir.config.write_text(config.model_dump_json(), encoding="utf-8")
    processes_known = state.num_ranks > 1 or num_processes is not None
    return state.num_steps, _notes(config, state, sequences, processes_known=processes_known)


def _restore(
    config: RunConfig, coders: Mapping[str, SparseCoder], state: UpstreamState
) -> tuple[Mapping[str, Tensor], CoderOptimizer]:
    """The weights to train on and the optimizer in upstream's state. `coders` keep the weights that were saved."""
    live = copy.deepcopy(dict(coders))
    optimizer = CoderOptimizer(config, live, num_steps=state.num_steps)
    own = optimizer.scalars()
    numbers = {name: [{**group, **state.numbers.get(name, {})} for group in groups] for name, groups in own.items()}
    optimizer.restore(state.optimizer, {}, numbers)
    return optimizer.go_to_training_point(), optimizer


def _coder_names(config: RunConfig) -> list[str]:
    seeds = [f"/seed{seed}" for seed in config.init_seeds] if len(config.init_seeds) > 1 else [""]
    return [hookpoint + seed for hookpoint in config.hookpoints for seed in seeds]


def _refuse_other_coders(theirs: Mapping[str, Any], config: RunConfig) -> None:
    if config.optimizer != theirs.get("optimizer", config.optimizer):
        raise ConfigError(
            f"the saved state is {theirs['optimizer']}'s, not {config.optimizer}'s: to change the optimizer, start a "
            "new run with --finetune"
        )
    for name in SparseCoderConfig.model_fields.keys() - _MAY_DIFFER:
        value = getattr(config.sae, name)
        if theirs["sae"].get(name, value) != value:
            raise ConfigError(f"{name} is {theirs['sae'][name]} in the coders to convert, not {value}: leave it out")


def _refuse_unknown_k(theirs: Mapping[str, Any], config: RunConfig, num_steps: int) -> None:
    """While k decays, upstream overwrites it, in its configuration too."""
    if num_steps * config.grad_acc_steps < config.k_decay_steps and config.sae.k == theirs["sae"]["k"]:
        raise ConfigError(
            f"the run was saved while k was falling, at {config.sae.k}, and its target is not stored: give it with --k"
        )


def _world_size(state: UpstreamState, num_processes: int | None) -> int:
    if num_processes is None:
        return state.num_ranks
    if num_processes < 1 or (state.num_ranks > 1 and num_processes != state.num_ranks):
        raise ConfigError(f"num_processes is {num_processes}, but the run has files of {state.num_ranks}: leave it out")
    return num_processes


def _notes(config: RunConfig, state: UpstreamState, sequences: int, *, processes_known: bool) -> list[str]:
    notes = [
        f"sparsify shuffles data in another way: training goes on behind sequence {sequences:,} of our order, so some "
        "sequences are seen again"
    ]
    if not processes_known:
        notes.append("the run is taken for that of one process: if several trained it, convert it with --num_processes")
    if config.optimizer == "muon":
        notes.append("sparsify stores muon's momentum in no order: it starts at zero")
    elif state.without_optimizer:
        notes.append(
            f"no state of {config.optimizer} is stored for {', '.join(state.without_optimizer)}: it starts anew"
        )
    if config.optimizer != "signum":
        notes.append("the learning rate falls to 0 over the length of the run here, in sparsify over its batches")
    if config.save_best:
        notes.append("the lowest loss so far is not taken over: the best checkpoint is looked for from here on")
    if not config.log_to_wandb:
        notes.append("logging to Weights & Biases is off: --log_to_wandb switches it on")
    return notes
