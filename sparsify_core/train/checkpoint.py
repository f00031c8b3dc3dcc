"""Write checkpoints: completely, or not at all."""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file

from sparsify_core.config import RunConfig
from sparsify_core.errors import DiskFullError
from sparsify_core.evaluation.result import Evaluation
from sparsify_core.events import CheckpointSaved
from sparsify_core.formats.sparsify import save_coder
from sparsify_core.manifest import delete_checkpoint, file_sha256, publish, write_manifest
from sparsify_core.rundir import CheckpointDir, RunDir
from sparsify_core.sizes import checkpoint_size
from sparsify_core.train.distributed import Group
from sparsify_core.train.units import Unit

_SPACE_MARGIN = 1.2


def save_checkpoint(
    run_dir: RunDir,
    config: RunConfig,
    units: Sequence[Unit],
    *,
    group: Group,
    step: int,
    tokens_seen: int,
    save_training_state: Callable[[CheckpointDir], None],
    evaluation: Evaluation | None,
    token_strings: Sequence[str],
) -> CheckpointSaved | None:
    """Write, flush and publish one checkpoint, then delete those beyond `keep_last`. All processes call it together.

    Args:
        units: the coders that this process writes, maybe none.
        save_training_state: writes this process's part of it.
        evaluation: of all coders, with the statistics of the latents of `units`.

    Returns the event that announces it, on rank 0. What a process cannot write is raised on all of them: DiskFullError,
    before anything is written, when the disk has no room.
    """
    staging, target = run_dir.staging(step), run_dir.checkpoint(step)
    needed_bytes = checkpoint_bytes(units, group) * _SPACE_MARGIN
    with group.failing_together():
        if group.is_main:
            shutil.rmtree(staging.root, ignore_errors=True)  # a killed attempt may have left it
            run_dir.root.mkdir(parents=True, exist_ok=True)
            check_space(run_dir, needed_bytes)
            staging.root.mkdir(parents=True)
    try:
        with group.failing_together(), _as_os_errors():
            for unit in units:
                _write_unit(staging, unit, config, evaluation)
            save_training_state(staging)
        with group.failing_together():
            if group.is_main:
                _complete(staging, config, evaluation, token_strings, step=step, tokens_seen=tokens_seen)
                publish(staging, target)
    except BaseException:
        if group.is_main:  # what is there of it would only fill the disk
            shutil.rmtree(staging.root, ignore_errors=True)
        raise
    if not group.is_main:
        return None
    _delete_old(run_dir, config, newest=target)
    return CheckpointSaved(
        step=step,
        path=target.root.relative_to(run_dir.root).as_posix(),
        manifest_sha256=file_sha256(target.manifest),
        size_bytes=sum(p.stat().st_size for p in target.root.rglob("*") if p.is_file()),
        evaluation=evaluation.values if evaluation is not None else {},
    )


def _complete(
    staging: CheckpointDir,
    config: RunConfig,
    evaluation: Evaluation | None,
    token_strings: Sequence[str],
    *,
    step: int,
    tokens_seen: int,
) -> None:
    """Write what is not of single coders, the manifest last."""
    config_text = config.model_dump_json()
    staging.config.write_text(config_text, encoding="utf-8")
    if evaluation is not None:
        _write_json(staging.evaluation, evaluation.to_json())
        held_out = evaluation.held_out
        text = {"ctx_len": held_out.tokens.shape[1], "tokens": list(token_strings), "sha256": held_out.sha256}
        _write_json(staging.tokens, text)
    config_sha256 = hashlib.sha256(config_text.encode()).hexdigest()
    write_manifest(staging, step=step, tokens_seen=tokens_seen, config_sha256=config_sha256)


@contextmanager
def _as_os_errors() -> Iterator[None]:
    """safetensors has its own class for a disk that is full or does not answer."""
    try:
        yield
    except SafetensorError as error:
        number = re.search(r"os error (\d+)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1]))) from error


def _write_unit(staging: CheckpointDir, unit: Unit, config: RunConfig, evaluation: Evaluation | None) -> None:
    directory = staging.coder(unit.name)
    directory.root.mkdir(parents=True)
    save_coder(directory, unit.coder, config.sae)
    if evaluation is not None:
        latents = evaluation.latents[unit.name].tensors(unit.coder.W_dec.norm(dim=1))
        save_file(latents, directory.inspection, {"num_tokens": str(evaluation.num_tokens)})


def checkpoint_bytes(units: Sequence[Unit], group: Group) -> int:
    """About how large a checkpoint is; `units` are those that this process writes. All processes call it together."""
    return sum(group.gather(checkpoint_size(unit.coder.size for unit in units)))


def check_space(run_dir: RunDir, needed_bytes: float) -> None:
    """Raise DiskFullError unless the disk of the run has that much room."""
    free = shutil.disk_usage(run_dir.root).free
    if free < needed_bytes:
        raise DiskFullError(
            f"checkpoints need {needed_bytes / 1e9:,.2f} GB, but the disk of the run has {free / 1e9:,.2f} GB free: "
            "make room, or lower keep_last"
        )


def _delete_old(run_dir: RunDir, config: RunConfig, newest: CheckpointDir) -> None:
    older = [checkpoint for checkpoint in run_dir.published() if checkpoint.root != newest.root]
    best = _best([*older, newest]) if config.save_best else None
    for checkpoint in older[: max(len(older) - config.keep_last + 1, 0)]:
        if best is None or checkpoint.root != best.root:
            delete_checkpoint(checkpoint)


def _best(checkpoints: Sequence[CheckpointDir]) -> CheckpointDir | None:
    """The checkpoint with the lowest held-out FVU, averaged over the coders; None when none was evaluated."""
    losses = {}
    for checkpoint in checkpoints:
        if checkpoint.evaluation.is_file():
            coders = json.loads(checkpoint.evaluation.read_text(encoding="utf-8"))["coders"].values()
            values = [numbers["eval_fvu"] for numbers in coders if "eval_fvu" in numbers]
            if values:  # activations without variance have no FVU
                losses[checkpoint] = sum(values) / len(values)
    return min(losses, key=lambda checkpoint: losses[checkpoint], default=None)


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value), encoding="utf-8")
