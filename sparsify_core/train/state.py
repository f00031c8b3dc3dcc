"""What a checkpoint holds beside the coders so that training goes on exactly where it stopped."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from sparsify_core.config import RunConfig
from sparsify_core.errors import CheckpointError
from sparsify_core.manifest import verify_checkpoint
from sparsify_core.rundir import CheckpointDir, RunDir
from sparsify_core.train.optim import CoderOptimizer
from sparsify_core.train.units import Unit, load_weights

_VERSION = 2

_MAY_CHANGE = {
    "adam_bits",
    "cache_activations",
    "resume",
    "nan_policy",
    "finetune",
    "run_name",
    "save_dir",
    "eval_every",
    "eval_downstream",
    "save_every",
    "save_best",
    "keep_last",
    "device",
    "compile_model",
    "data_preprocessing_num_proc",
    "log_every",
    "waterfall_every",
    "log_to_tensorboard",
    "log_to_wandb",
    "wandb_log_frequency",
}
"""Fields that do not influence what the weights become; what adam_bits comes to is compared by the optimizer."""


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
    saved = _flat(json.loads(checkpoint.config.read_text(encoding="utf-8")))
    for name, value in _flat(config.model_dump()).items():
        if name not in _MAY_CHANGE and saved.get(name, value) != value:
            raise CheckpointError(
                f"{name} was {saved[name]} when {checkpoint.root.name} was saved and is {value} now: "
                "resume with the old value, or start a new run"
            )


def _flat(values: Mapping[str, Any]) -> dict[str, Any]:
    nested = values["sae"]
    flat = {name: value for name, value in values.items() if name != "sae"}
    return flat | {f"sae.{name}": value for name, value in nested.items()}
