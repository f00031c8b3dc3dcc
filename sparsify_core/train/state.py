"""What a checkpoint holds beside the coders so that training goes on exactly where it stopped."""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from sparsify_core.config import RunConfig
from sparsify_core.config.continuation import FORKABLE, SAME_WEIGHTS, changed, flat
from sparsify_core.errors import CheckpointError
from sparsify_core.manifest import verify_checkpoint
from sparsify_core.rundir import CheckpointDir, RunDir
from sparsify_core.train.optim import CoderOptimizer
from sparsify_core.train.units import Unit, load_weights

_VERSION = 2


def save_tensors(
    checkpoint: CheckpointDir,
    units: Sequence[Unit],
    optimizer: CoderOptimizer,
    training_weights: Mapping[str, Tensor],
    *,
    rank: int,
) -> None:
    """Write this process's training.safetensors: every tensor is in one file, under the name of its coder.

    Args:
        training_weights: the weights to train on where they are not those of the coder files.
    """
    tensors = {f"optimizer/{name}": tensor for name, tensor in optimizer.tensors().items()}
    tensors |= {f"weights/{name}": tensor for name, tensor in training_weights.items()}
    tensors |= {f"tokens_since_fired/{unit.name}": unit.tokens_since_fired_M for unit in units}
    save_file(
        {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()},
        checkpoint.training_tensors(rank),
    )


def save_numbers(checkpoint: CheckpointDir, groups: Sequence[Mapping[str, Any]], *, step: int, world_size: int) -> None:
    """Write training.json, the one place of what is not a tensor.

    Args:
        groups: `CoderOptimizer.scalars()` of each process.
    """
    state = {
        "version": _VERSION,
        "step": step,
        "world_size": world_size,
        "groups": {name: numbers for own in groups for name, numbers in own.items()},
    }
    checkpoint.training_state.write_text(json.dumps(state), encoding="utf-8")


def load_state(checkpoint: CheckpointDir, units: Sequence[Unit], optimizer: CoderOptimizer, *, world_size: int) -> None:
    """Put weights, optimizer and counters of `units` back.

    Raises CheckpointError when the number of processes is another: the run would be cut into other steps.
    """
    state = json.loads(checkpoint.training_state.read_text(encoding="utf-8"))
    if state["version"] != _VERSION:
        raise CheckpointError(f"{checkpoint.root.name} was saved by another version and cannot be resumed")
    if state["world_size"] != world_size:
        raise CheckpointError(
            f"{checkpoint.root.name} was trained by {_processes(state['world_size'])} and can only be resumed by as "
            f"many, not by {_processes(world_size)}: a step would be made of other sequences"
        )
    load_weights(units, checkpoint.root)
    parts: dict[str, dict[str, Tensor]] = {"optimizer": {}, "weights": {}, "tokens_since_fired": {}}
    for name, tensor in _own_tensors(checkpoint, units, world_size):
        part, _, rest = name.partition("/")
        parts[part][rest] = tensor
    for unit in units:
        unit.tokens_since_fired_M.copy_(parts["tokens_since_fired"][unit.name])
    optimizer.restore(parts["optimizer"], parts["weights"], state["groups"])


def _own_tensors(checkpoint: CheckpointDir, units: Sequence[Unit], world_size: int) -> Iterator[tuple[str, Tensor]]:
    """What the checkpoint's training tensors hold about `units`, whichever process wrote it."""
    own = tuple(f"/{unit.name}" for unit in units)
    for rank in range(world_size):
        if checkpoint.training_tensors(rank).is_file():
            with safe_open(checkpoint.training_tensors(rank), framework="pt") as file:
                for name in file.keys():  # noqa: SIM118 - the file is no dictionary
                    rest = name[name.index("/") :]
                    if rest in own or rest.startswith(tuple(f"{prefix}/" for prefix in own)):
                        yield name, file.get_tensor(name)


def _processes(number: int) -> str:
    return "1 process" if number == 1 else f"{number} processes"


def newest_intact(run_dir: RunDir) -> tuple[CheckpointDir | None, list[str]]:
    """The newest checkpoint that can be resumed from (None: there is none yet), and what is wrong with newer ones."""
    problems: list[str] = []
    for checkpoint in reversed(run_dir.published()):
        try:
            verify_checkpoint(checkpoint)
        except CheckpointError as error:
            problems.append(str(error))
            continue
        if checkpoint.training_state.is_file():
            return checkpoint, problems
    return None, problems


def refuse_changes(checkpoint: CheckpointDir, config: RunConfig) -> None:
    """Raise CheckpointError when the run was configured otherwise in a way that would change the weights."""
    for name, old, new in _changes(checkpoint, config, SAME_WEIGHTS):
        raise CheckpointError(
            f"{name} was {old} when {checkpoint.root.name} was saved and is {new} now: "
            "resume with the old value, or start a new run"
        )


def fork_point(config: RunConfig) -> CheckpointDir:
    """The checkpoint that a run with `finetune_state` goes on behind.

    Raises CheckpointError when it is no checkpoint with a training state, is damaged, or does not fit the options.
    """
    checkpoint = CheckpointDir(Path(config.finetune or "").expanduser())
    verify_checkpoint(checkpoint)
    if not checkpoint.training_state.is_file():
        raise CheckpointError(f"{checkpoint.root} has no training state: leave finetune_state out")
    for name, old, new in _changes(checkpoint, config, FORKABLE):
        raise CheckpointError(
            f"{name} was {old} when {checkpoint.root.name} was saved and is {new} now, which does not go with its "
            "training state: keep the old value, or leave finetune_state out"
        )
    return checkpoint


def _changes(
    checkpoint: CheckpointDir, config: RunConfig, may_change: Collection[str]
) -> Iterator[tuple[str, Any, Any]]:
    """Name, old and new value of every other option that differs."""
    saved, now = json.loads(checkpoint.config.read_text(encoding="utf-8")), config.model_dump()
    for name in changed(saved, now):
        if name not in may_change:
            yield name, flat(saved)[name], flat(now)[name]
