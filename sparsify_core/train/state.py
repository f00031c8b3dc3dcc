"""What a checkpoint holds beside the coders so that training goes on exactly where it stopped."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from sparsify_core.config import RunConfig
from sparsify_core.errors import CheckpointError
from sparsify_core.manifest import verify_checkpoint
from sparsify_core.rundir import CheckpointDir, RunDir
from sparsify_core.train.optim import CoderOptimizer
from sparsify_core.train.units import Unit, load_weights

_VERSION = 1

_MAY_CHANGE = {
    "resume",
    "finetune",
    "run_name",
    "save_dir",
    "save_every",
    "save_best",
    "keep_last",
    "device",
    "data_preprocessing_num_proc",
    "log_every",
    "log_to_wandb",
    "wandb_log_frequency",
}
"""Fields that do not influence what the weights become."""


def save_state(
    checkpoint: CheckpointDir,
    units: Sequence[Unit],
    optimizer: CoderOptimizer,
    training_weights: Mapping[str, Tensor],
    *,
    step: int,
    sequences_per_step: int,
) -> None:
    """Write training.json and training.safetensors.

    Args:
        training_weights: the weights to train on where they are not those of the coder files.
    """
    tensors = {f"optimizer/{name}": tensor for name, tensor in optimizer.tensors().items()}
    tensors |= {f"weights/{name}": tensor for name, tensor in training_weights.items()}
    tensors |= {f"tokens_since_fired/{unit.name}": unit.tokens_since_fired_M for unit in units}
    save_file(
        {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, checkpoint.training_tensors
    )
    state = {
        "version": _VERSION,
        "step": step,
        "sequences_per_step": sequences_per_step,
        "groups": optimizer.scalars(),
    }
    checkpoint.training_state.write_text(json.dumps(state), encoding="utf-8")


def load_state(
    checkpoint: CheckpointDir, units: Sequence[Unit], optimizer: CoderOptimizer, *, sequences_per_step: int
) -> None:
    """Put weights, optimizer and counters back. Raises CheckpointError when the run is cut into other steps."""
    state = json.loads(checkpoint.training_state.read_text(encoding="utf-8"))
    if state["version"] != _VERSION:
        raise CheckpointError(f"{checkpoint.root.name} was saved by another version and cannot be resumed")
    if state["sequences_per_step"] != sequences_per_step:
        raise CheckpointError(
            f"{checkpoint.root.name} was trained with {state['sequences_per_step']} sequences per step, now there are "
            f"{sequences_per_step}: use as many processes as before"
        )
    load_weights(units, checkpoint.root)
    parts: dict[str, dict[str, Tensor]] = {"optimizer": {}, "weights": {}, "tokens_since_fired": {}}
    for name, tensor in load_file(checkpoint.training_tensors).items():
        part, _, rest = name.partition("/")
        parts[part][rest] = tensor
    for unit in units:
        unit.tokens_since_fired_M.copy_(parts["tokens_since_fired"][unit.name])
    optimizer.restore(parts["optimizer"], parts["weights"], state["groups"])


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
