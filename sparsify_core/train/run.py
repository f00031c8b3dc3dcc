"""One attempt at a run: set the process up, load, train, and account for how it ended."""

import importlib.metadata
import logging
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from sparsify_core.capture.compile import compiled_layers
from sparsify_core.capture.forward import ActivationTap
from sparsify_core.capture.hookpoints import resolve_hookpoints
from sparsify_core.capture.load import load_model
from sparsify_core.config import RunConfig
from sparsify_core.data.exclude import excluded_tokens
from sparsify_core.data.rows import check_vocabulary
from sparsify_core.data.sequences import Sequences, load_sequences
from sparsify_core.data.tokenize import load_tokenizer
from sparsify_core.errors import CheckpointError, ConfigError, DataError, ModelError, SparsifyError
from sparsify_core.events import AttemptFinished, AttemptStarted, EventWriter, TrainingPlanned
from sparsify_core.rundir import CheckpointDir, RunDir
from sparsify_core.train.adam import resolve_bits
from sparsify_core.train.cached import Caching
from sparsify_core.train.causes import as_failure
from sparsify_core.train.distributed import Group
from sparsify_core.train.end_to_end import EndToEnd
from sparsify_core.train.finetune import start_from
from sparsify_core.train.placement import check_processes, place
from sparsify_core.train.process import die_with_parent, peak_memory_bytes, use_all_cores
from sparsify_core.train.report import Reporter
from sparsify_core.train.sinks import check_packages, open_sinks
from sparsify_core.train.state import fork_point, newest_intact, refuse_changes
from sparsify_core.train.stop import StopRequest
from sparsify_core.train.trainer import Trainer
from sparsify_core.train.units import build_units

logger = logging.getLogger(__name__)

_VERSIONS_OF = ("sparseboard", "torch", "transformers", "datasets", "schedulefree", "bitsandbytes")


@dataclass(frozen=True)
class Sources:
    """Where an attempt gets the language model and the token sequences from."""

    model: Callable[[RunConfig, torch.device], nn.Module] = load_model
    sequences: Callable[[RunConfig], Sequences] = load_sequences


def run_attempt(config: RunConfig, run_dir: RunDir, *, attempt: int, sources: Sources | None = None) -> None:
    """Carry out one attempt and write its event file.

    Args:
        sources: of model and data; None: those that the configuration names.

    Raises what ended it (`causes.as_failure`), after `AttemptFinished(outcome="failed")` was written.
    """
    group = Group(config)
    if group.is_launched:
        die_with_parent()
    use_all_cores(group.local_world_size)
    reporter = Reporter(_open_events(run_dir, attempt) if group.is_main else None, run_dir.pulse(attempt))
    failed = True
    try:
        completed = _carry_out(config, run_dir, group, reporter, attempt, sources or Sources())
        failed = False
        outcome: Literal["completed", "stopped"] = "completed" if completed else "stopped"
        reporter.event(_finished(AttemptFinished(outcome=outcome), group, reporter))
    except BaseException as error:
        failure = as_failure(error)
        reporter.event(_finished(_failed_event(failure), group, reporter))
        if failure is error:
            raise
        raise failure from error
    finally:
        reporter.close(failed=failed)
        group.leave()


def _carry_out(
    config: RunConfig, run_dir: RunDir, group: Group, reporter: Reporter, attempt: int, sources: Sources
) -> bool:
    """Load everything and train. Returns whether the run is complete (False: stopped on request)."""
    own, problems = newest_intact(run_dir) if config.resume else (None, [])
    is_fork = own is None and config.finetune_state
    checkpoint = fork_point(config) if is_fork else own
    reporter.event(
        AttemptStarted(
            resumed_step=checkpoint.step if checkpoint else 0,
            world_size=group.world_size,
            device=_device_name(group.device),
            versions=_versions(),
        )
    )
    for problem in problems:
        reporter.warn(problem)
    if own is not None:
        refuse_changes(own, config)
    check_processes(config, group.world_size)
    check_packages(config)
    if config.optimizer == "adam":
        resolve_bits(config, group.device)  # refused before anything is loaded
    group.join()
    if group.is_main and not run_dir.config.exists():
        run_dir.config.write_text(config.model_dump_json(), encoding="utf-8")
    with group.failing_together():
        if group.is_main:
            first_step = checkpoint.step if checkpoint else 0
            reporter.log_to(open_sinks(config, run_dir, attempt=attempt, first_step=first_step))
    reporter.phase("loading model", detail=config.model)
    model = sources.model(config, group.device)
    with ExitStack() as undo:
        trainer = _build(
            config, model, sources, group=group, run_dir=run_dir, reporter=reporter, resuming=checkpoint, undo=undo
        )
        if trainer is None:
            return False
        if checkpoint is not None:
            if is_fork and checkpoint.step >= trainer.num_steps:
                raise CheckpointError(
                    f"{checkpoint.root.name} is not before the end of this run of {trainer.num_steps} steps: "
                    "raise num_epochs, or leave finetune_state out"
                )
            with group.failing_together():
                trainer.resume(checkpoint)
        with trainer.stop.listening():
            return trainer.run()


def _build(
    config: RunConfig,
    model: nn.Module,
    sources: Sources,
    *,
    group: Group,
    run_dir: RunDir,
    reporter: Reporter,
    resuming: CheckpointDir | None,
    undo: ExitStack,
) -> Trainer | None:
    """Hook into the model, make the coders, read the data; None: stopped on request while activations were cached.
    `undo` leaves the model as it was.
    """
    base: nn.Module = model.base_model  # type: ignore[assignment]
    hookpoints = resolve_hookpoints(base, config)
    tap = ActivationTap(base, hookpoints, needs_inputs=config.sae.transcode)
    undo.callback(tap.close)
    placement = place(config, tap.widths(group.device), hookpoints, group.world_size)
    stop, caching = StopRequest(), None
    if config.cache_activations is not None:
        caching = Caching(config, Path(config.cache_activations).expanduser(), tap, group, reporter, stop)
    units = build_units(config, placement.trained_by(group.rank), group.device)
    if config.finetune is not None and resuming is None:
        with group.failing_together():
            start_from(config.finetune, units)
    end_to_end = EndToEnd(config, model, units) if config.loss_fn != "fvu" else None
    if end_to_end is not None:
        undo.callback(end_to_end.close)
    # Behind the short forwards, because every shape is compiled anew.
    undo.enter_context(compiled_layers(base, hookpoints, config, group.device))

    check_vocabulary(config, _vocabulary_size(model))
    reporter.phase("tokenizing", detail=config.dataset)
    sequences = _in_turn(group, lambda: sources.sequences(config))
    _check_amount(config, sequences, group.world_size)
    if group.is_main:
        _warn(config, sequences, group.world_size, reporter)
    cached = None
    if caching is not None:
        cached = caching.provide(sequences, _vocabulary_size(model))
        if cached is None:
            return None
        undo.callback(cached.close)
    trainer = Trainer(
        config,
        tap=tap,
        cached=cached,
        lm=model if config.eval_downstream else None,
        placement=placement,
        end_to_end=end_to_end,
        units=units,
        sequences=sequences,
        exclude_tokens=excluded_tokens(config),
        token_strings=_token_strings(config, sequences) if group.is_main else [],
        max_token_id=_vocabulary_size(model),
        group=group,
        run_dir=run_dir,
        reporter=reporter,
        stop=stop,
    )
    reporter.event(
        TrainingPlanned(
            total_steps=trainer.num_steps,
            tokens_per_step=trainer.tokens_per_step,
            coders=[coder.name for coder in placement.coders],
            num_latents={coder.name: coder.num_latents for coder in placement.coders},
        )
    )
    return trainer


def _open_events(run_dir: RunDir, attempt: int) -> EventWriter:
    try:
        return EventWriter(run_dir.events(attempt), attempt=attempt)
    except FileExistsError as error:
        raise ConfigError(f"attempt {attempt} of {run_dir.root} was already made: give the next number") from error
    except OSError as error:
        raise ConfigError(f"the run folder {run_dir.root} cannot be written: {error.strerror}") from error


def _finished(event: AttemptFinished, group: Group, reporter: Reporter) -> AttemptFinished:
    """With how far the attempt came, and what it took."""
    return event.model_copy(update={"step": reporter.step, "peak_memory_bytes": peak_memory_bytes(group.device)})


def _failed_event(error: BaseException) -> AttemptFinished:
    if isinstance(error, SparsifyError):
        return AttemptFinished(outcome="failed", reason_code=error.code, message=str(error))
    if isinstance(error, KeyboardInterrupt):
        return AttemptFinished(
            outcome="failed", reason_code="interrupted", message="interrupted before training started"
        )
    message = f"the trainer broke: {type(error).__name__}: {error}"
    return AttemptFinished(outcome="failed", reason_code="internal_error", message=message)


def _in_turn(group: Group, load: Callable[[], Sequences]) -> Sequences:
    """Rank 0 first, so that it alone fills the caches that the others then read."""
    if group.is_main:
        loaded = load()
    group.wait()
    return loaded if group.is_main else load()


def _check_amount(config: RunConfig, sequences: Sequences, world_size: int) -> None:
    """Raise DataError when the data does not fill one optimizer step."""
    needed = config.batch_size * config.grad_acc_steps * world_size
    if len(sequences.train) < needed:
        raise DataError(
            f"{len(sequences.train)} sequences of {sequences.rows.length} tokens are left to train on, but one step "
            f"takes {needed}: lower batch_size or grad_acc_steps, or raise max_tokens or the amount of data"
        )


def _warn(config: RunConfig, sequences: Sequences, world_size: int, reporter: Reporter) -> None:
    length = sequences.rows.length
    num_steps = sequences.num_steps(config.batch_size * config.grad_acc_steps * world_size)
    if length != config.ctx_len:
        reporter.warn(f"sequences have {length} tokens, not ctx_len = {config.ctx_len}: model or dataset give no more")
    if config.optimizer != "signum" and config.lr_warmup_steps >= num_steps:
        reporter.warn(
            f"lr_warmup_steps = {config.lr_warmup_steps} is not less than the run's {num_steps} steps: "
            "the learning rate never reaches its full value"
        )
    if config.eval_tokens and not len(sequences.held_out):
        reporter.warn("the dataset is too small to hold anything out: no evaluation and no look at latents")


def _token_strings(config: RunConfig, sequences: Sequences) -> list[str]:
    """The held-out tokens as text, one string each; ids where the model comes without a tokenizer."""
    if not len(sequences.held_out):
        return []
    ids: list[int] = sequences.held_out_tokens().flatten().tolist()
    try:
        tokenizer: Any = load_tokenizer(config.model, config.revision)
    except ModelError:
        return [str(token) for token in ids]
    distinct = sorted(set(ids))
    strings = dict(zip(distinct, tokenizer.batch_decode([[token] for token in distinct]), strict=True))
    return [strings[token] for token in ids]


def _vocabulary_size(model: nn.Module) -> int:
    embeddings: Any = model.get_input_embeddings()  # type: ignore[operator]
    return int(embeddings.num_embeddings)


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def _versions() -> dict[str, str]:
    versions = {}
    for package in _VERSIONS_OF:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def next_attempt(run_dir: RunDir) -> int:
    """The number after the last attempt that has an event file."""
    numbers = [int(p.stem) for p in Path(run_dir.root, "events").glob("[0-9]*.jsonl")]
    return max(numbers, default=0) + 1
