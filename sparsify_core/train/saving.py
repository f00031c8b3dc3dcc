"""What a run does between two steps: measure its coders on the held-out tokens and write checkpoints."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

from torch import Tensor, nn

from sparsify_core.capture.forward import ActivationTap
from sparsify_core.config import RunConfig
from sparsify_core.evaluation.held_out import HeldOut, sequences_per_forward
from sparsify_core.evaluation.measure import measure
from sparsify_core.evaluation.result import Evaluation
from sparsify_core.metrics import series_key
from sparsify_core.model.coder import SparseCoder
from sparsify_core.rundir import CheckpointDir, RunDir
from sparsify_core.train.checkpoint import check_space, checkpoint_bytes, save_checkpoint
from sparsify_core.train.distributed import Group
from sparsify_core.train.optim import CoderOptimizer
from sparsify_core.train.placement import Placement
from sparsify_core.train.report import Reporter
from sparsify_core.train.state import save_numbers, save_tensors
from sparsify_core.train.step import Batch
from sparsify_core.train.stop import StopRequest
from sparsify_core.train.threshold import calibrate
from sparsify_core.train.units import Unit

_AHEAD = 2


class Saver:
    """Every process evaluates and writes the coders that are its own; of replicas rank 0 does, the others wait.

    Args:
        lm: the model with its head, for the downstream metrics; None leaves them out.
        units: the coders that `placement` gives to this process.
        held_out: None when nothing is held out, so nothing evaluated.
        token_strings: the held-out text, token by token, for the look at latents.
        tokens_per_step: of all processes.
    """

    def __init__(
        self,
        config: RunConfig,
        *,
        tap: ActivationTap,
        lm: nn.Module | None,
        placement: Placement,
        units: Sequence[Unit],
        optimizer: CoderOptimizer,
        held_out: HeldOut | None,
        token_strings: Sequence[str],
        tokens_per_step: int,
        group: Group,
        run_dir: RunDir,
        reporter: Reporter,
        stop: StopRequest,
    ) -> None:
        self._config = config
        self._tap = tap
        self._lm = lm
        self._placement = placement
        self._units = units
        own = {coder.name for coder in placement.saved_by(group.rank)}
        self._saved_units = [unit for unit in units if unit.name in own]
        self._optimizer = optimizer
        self._held_out = held_out
        self._token_strings = token_strings
        self._tokens_per_step = tokens_per_step
        self._group = group
        self._run_dir = run_dir
        self._reporter = reporter
        self._stop = stop

    def check_space(self) -> None:
        """Raise DiskFullError unless there is room for two checkpoints: a new one is complete before an old one goes.

        All processes call it together, before training: a run that cannot save shall not begin.
        """
        needed_bytes = _AHEAD * checkpoint_bytes(self._saved_units, self._group)
        with self._group.failing_together():
            if self._group.is_main:
                check_space(self._run_dir, needed_bytes)

    def save(self, step: int, last_batch: Batch | None, *, with_evaluation: bool) -> None:
        """Write a checkpoint, with the numbers of an evaluation. All processes call it together.

        Args:
            last_batch: this process's last one with tokens that count; BatchTopK's threshold is measured on it.
        """
        group = self._group
        with self._deployed_coders(last_batch) as training_weights:
            evaluation = self._evaluate(step) if with_evaluation else None
            self._reporter.phase("saving", step)
            event = save_checkpoint(
                self._run_dir,
                self._config,
                self._saved_units,
                group=group,
                step=step,
                tokens_seen=step * self._tokens_per_step,
                save_training_state=partial(
                    self._save_training_state,
                    training_weights=training_weights,
                    groups=group.gather(self._optimizer.scalars()),
                    step=step,
                ),
                evaluation=evaluation,
                token_strings=self._token_strings,
            )
        if event is not None:
            self._reporter.event(event)
        group.wait()

    def evaluate(self, step: int, last_batch: Batch | None) -> None:
        """Report the numbers of an evaluation without saving anything. All processes call it together."""
        with self._deployed_coders(last_batch):
            self._evaluate(step)

    @contextmanager
    def _deployed_coders(self, last_batch: Batch | None) -> Iterator[dict[str, Tensor]]:
        """Inside, the coders are what is evaluated and saved; yields the weights to train on, where they differ."""
        for unit in self._units:
            unit.coder.k = self._config.sae.k  # what cfg.json says; the next step sets its own
        with self._optimizer.deployed_weights() as training_weights:
            if self._config.sae.activation == "batchtopk" and last_batch is not None:
                calibrate(self._saved_units, *last_batch, chunks=self._config.micro_acc_steps)
            yield training_weights

    def _save_training_state(
        self,
        checkpoint: CheckpointDir,
        *,
        training_weights: Mapping[str, Tensor],
        groups: Sequence[Mapping[str, Any]],
        step: int,
    ) -> None:
        rank = self._group.rank
        if self._saved_units:
            save_tensors(checkpoint, self._saved_units, self._optimizer, training_weights, rank=rank)
        if self._group.is_main:
            save_numbers(checkpoint, groups, step=step, world_size=self._group.world_size)

    def _should_stop(self) -> bool:
        """Asked before every batch of an evaluation."""
        self._reporter.beat()
        return bool(self._stop)

    def _evaluate(self, step: int) -> Evaluation | None:
        """All coders' numbers, with the latents of those that this process saves; None where there is nothing to save,
        and on all processes when one of them gave up.
        """
        if self._held_out is None:
            return None
        self._reporter.phase("evaluating", step)
        coders: dict[str, dict[str, SparseCoder]] = {}
        for unit in self._saved_units:
            coders.setdefault(unit.hookpoint, {})[unit.name] = unit.coder
        evaluation = None
        if coders:
            evaluation = measure(
                self._tap,
                coders,
                self._held_out,
                lm=self._lm,
                batch_size=sequences_per_forward(self._config),
                should_stop=self._should_stop,
            )
        found: dict[str, dict[str, float]] = {}
        density: dict[str, dict[str, Any]] = {}
        for share in self._group.gather(None if evaluation is None else (evaluation.values, evaluation.density)):
            if share is not None:
                found |= share[0]
                density |= share[1]
        if evaluation is None or len(found) < len(self._placement.coders):
            return None
        by_coder = {coder.name: found[coder.name] for coder in self._placement.coders}
        values = {
            series_key(name, coder): value for coder, numbers in by_coder.items() for name, value in numbers.items()
        }
        self._reporter.metrics(step, values)
        self._reporter.evaluated(step, values)
        return replace(evaluation, values=by_coder, density={name: density[name] for name in by_coder})
