"""The training loop: batches -> activations -> coders -> optimizer step, with checkpoints on the way."""

from collections.abc import Iterator
from contextlib import closing
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from sparsify_core.activation_cache.read import Reader
from sparsify_core.capture.forward import ActivationTap, Consumer
from sparsify_core.config import RunConfig
from sparsify_core.data.exclude import kept_positions
from sparsify_core.data.read_ahead import ReadAhead
from sparsify_core.data.rows import check_ids
from sparsify_core.data.sequences import Sequences
from sparsify_core.evaluation.held_out import HeldOut
from sparsify_core.rundir import CheckpointDir, RunDir
from sparsify_core.timing import spanned
from sparsify_core.train.distributed import Group
from sparsify_core.train.end_to_end import EndToEnd
from sparsify_core.train.exchange import Exchange
from sparsify_core.train.finish import StepEnd
from sparsify_core.train.floor import build_floor
from sparsify_core.train.optim import CoderOptimizer
from sparsify_core.train.placement import Placement
from sparsify_core.train.points import PointLog
from sparsify_core.train.report import Reporter
from sparsify_core.train.saving import Saver
from sparsify_core.train.schedule import decayed_k, divisor_from
from sparsify_core.train.start import initialize_biases
from sparsify_core.train.state import load_state
from sparsify_core.train.step import Batch, StepSums, has_one_selection
from sparsify_core.train.stop import StopRequest
from sparsify_core.train.units import Unit, read_as_they_are
from sparsify_core.train.waterfall import Waterfall


class Trainer:
    """Trains all units in one pass over the data.

    Args:
        cached: the activations of the training sequences on disk; None: the model runs.
        lm: the model with its head, for evaluation; None leaves the downstream metrics out.
        end_to_end: for the losses ce and kl; None trains on the activations.
        units: the coders that `placement` gives to this process.
        exclude_tokens: ids whose positions do not count (sparsify_core.data.exclude.excluded_tokens).
        token_strings: the held-out text, token by token, for the look at latents.
        max_token_id: exclusive bound of token ids, the model's vocabulary.
    """

    def __init__(
        self,
        config: RunConfig,
        *,
        tap: ActivationTap,
        cached: Reader | None,
        lm: nn.Module | None,
        placement: Placement,
        end_to_end: EndToEnd | None,
        units: list[Unit],
        sequences: Sequences,
        exclude_tokens: tuple[int, ...],
        token_strings: list[str],
        max_token_id: int,
        group: Group,
        run_dir: RunDir,
        reporter: Reporter,
        stop: StopRequest,
    ) -> None:
        self._config = config
        self._tap = tap
        self._cached = cached
        self._end_to_end = end_to_end
        self._placement = placement
        self._replicas = group if placement.owners is None and group.world_size > 1 else None
        self._units = units
        self._by_hookpoint: dict[str, list[Unit]] = {}
        for unit in units:
            self._by_hookpoint.setdefault(unit.hookpoint, []).append(unit)
        self._keeps_dtype = read_as_they_are(units, tap.dtype)
        self._exchange = None
        if placement.owners is not None:
            rows_vary = bool(exclude_tokens)  # `exclude_first` leaves as many of one batch as of another
            self._exchange = Exchange(group, placement.owners, rows_vary=rows_vary, keeps_dtype=self._keeps_dtype)
        self._exclude_tokens = exclude_tokens
        self._max_token_id = max_token_id
        self._group = group
        self._reporter = reporter
        self.stop = stop
        self._sequences_per_step = config.batch_size * config.grad_acc_steps * group.world_size
        self.num_steps = sequences.num_steps(self._sequences_per_step)
        self.tokens_per_step = self._sequences_per_step * sequences.rows.length
        self._read_ahead = ReadAhead(
            sequences,
            size=config.batch_size,
            rank=group.rank,
            world_size=group.world_size,
            end=self.num_steps * self._sequences_per_step,
        )
        self._optimizer = CoderOptimizer(config, {unit.name: unit.coder for unit in units}, self.num_steps)
        self._points = PointLog(
            config, placement, reporter, num_steps=self.num_steps, tokens_per_step=self.tokens_per_step
        )
        every = config.waterfall_every if group.is_main else 0
        floor = build_floor(config, tap, units, group, length=sequences.rows.length) if every else None
        self._waterfall = Waterfall(every, group.device, reporter, floor)
        self._first_step = 0
        self._last_batch: Batch | None = None
        self._end: StepEnd | None = None
        held_out = None
        if len(sequences.held_out):
            held_out = HeldOut(sequences.held_out_tokens(), exclude_tokens, config.exclude_first)
        self._saver = Saver(
            config,
            tap=tap,
            lm=lm,
            placement=placement,
            units=units,
            optimizer=self._optimizer,
            held_out=held_out,
            token_strings=token_strings,
            tokens_per_step=self.tokens_per_step,
            group=group,
            run_dir=run_dir,
            reporter=reporter,
            stop=self.stop,
        )

    def resume(self, checkpoint: CheckpointDir) -> None:
        """Go on behind `checkpoint` instead of starting."""
        load_state(checkpoint, self._units, self._optimizer, world_size=self._group.world_size)
        self._first_step = checkpoint.step

    def run(self) -> bool:
        """Train to the end, or until a stop is asked for; both end with a checkpoint.

        Returns:
            True when the run is complete. Raises NonFiniteLossError without saving.
        """
        with closing(self._read_ahead):
            return self._run()

    def _run(self) -> bool:
        self._saver.check_space()
        self._reporter.phase("training", self._first_step)
        if self._config.finetune is None and self._first_step == 0:
            initialize_biases(self._units, self._batches(0), self._group, first_only=self._config.upstream_compat)
        self._points.start(self._first_step)
        self._waterfall.start(self._first_step)
        for step in range(self._first_step, self.num_steps):
            with self._waterfall.step(step + 1):
                stats = self._train_step(step)
            self._reporter.beat()
            done = step + 1
            last = done == self.num_steps
            saving = last or done % self._config.save_every == 0
            stopping = self._group.any_before(bool(self.stop))
            evaluating = bool(self._config.eval_every) and done % self._config.eval_every == 0
            pausing = stopping or saving or evaluating
            if done % self._config.log_every == 0 or pausing:
                self._note(done, stats)
            if not pausing:
                continue
            self._settle()
            self._points.flush()  # nothing is saved behind a loss that is not finite
            self._waterfall.flush()
            with self._points.pause():
                if stopping or saving:
                    self._saver.save(done, self._last_batch, with_evaluation=not stopping)
                else:
                    self._saver.evaluate(done, self._last_batch)
            if not last:
                self._reporter.phase("training", done)
            if stopping and not last:
                return False
        return True

    def _train_step(self, step: int) -> Tensor:
        self._set_k(step)
        sums = {
            unit.name: StepSums(unit, self._config, keeps_entries=self._keeps_entries(unit)) for unit in self._units
        }
        end = StepEnd(sums, self._optimizer, self._replicas, step)
        *earlier, last = spanned("data", self._batches(step))
        for batch in earlier:
            self._add_batch(sums, batch)
        self._add_batch(sums, last, end)
        stats = end.finish()
        self._end = end
        return stats

    def _keeps_entries(self, unit: Unit) -> bool:
        is_alone = self._replicas is None and has_one_selection(self._config, unit.coder)
        return is_alone and self._optimizer.steps_at_once(unit.name)

    def _settle(self) -> None:
        """Update what the step before has left to be updated."""
        if self._end is not None:
            self._end.settle()

    def _add_batch(self, sums: dict[str, StepSums], batch: Batch, end: StepEnd | None = None) -> None:
        """Forward and backward of all coders.

        Args:
            end: of the step, with its last batch. On the activations each coder is completed there as soon as it has
                seen them; then the model runs even if no token counts, for all replicas to go by the same order.
        """
        input_ids, kept, source = batch
        has_tokens = kept is None or len(kept) > 0
        if has_tokens:
            self._last_batch = batch
        train = partial(self._train_coders, sums, end)
        if self._end_to_end is not None:
            self._settle()
            self._end_to_end.add(sums, input_ids, kept)
        elif self._exchange is not None:
            self._exchange.run(source, input_ids, kept, train)
        elif has_tokens or end is not None:
            source.run(input_ids, partial(_of_kept, kept, train), keeps_dtype=self._keeps_dtype)

    def _train_coders(
        self, sums: dict[str, StepSums], end: StepEnd | None, hookpoint: str, x_ND: Tensor, y_NE: Tensor
    ) -> None:
        self._settle()
        for unit in self._by_hookpoint[hookpoint]:
            if len(y_NE):
                sums[unit.name].add(x_ND, y_NE)
            if end is not None:
                end.complete(unit.name)

    def _set_k(self, step: int) -> None:
        """One k per optimizer step, so that accumulation stays equal to one big batch."""
        config = self._config
        if config.k_decay_steps:
            for unit in self._units:
                k = decayed_k(
                    step * config.grad_acc_steps,
                    k=config.sae.k,
                    width=unit.coder.d_in,
                    num_latents=unit.coder.num_latents,
                    decay_batches=config.k_decay_steps,
                )
                uses_groups = config.sae.activation == "groupmax"
                unit.coder.k = divisor_from(k, unit.coder.num_latents) if uses_groups else k

    def _batches(self, step: int) -> Iterator[Batch]:
        """This rank's batches of optimizer step `step` (from 0)."""
        config = self._config
        first = step * self._sequences_per_step
        for start, ids in self._read_ahead.batches(first, first + self._sequences_per_step):
            check_ids(config, ids, self._max_token_id)
            source = self._tap if self._cached is None else self._cached.at(start)
            # End to end, the model's own activations need the memory: then it is the batch that is cut.
            for part in np.array_split(ids, min(config.micro_acc_steps, len(ids)) if self._end_to_end else 1):
                kept = kept_positions(part, exclude_tokens=self._exclude_tokens, exclude_first=config.exclude_first)
                yield Batch(self._to_device(part), None if kept is None else self._to_device(kept), source)

    def _to_device(self, array: np.ndarray[tuple[int, ...], np.dtype[np.int64]]) -> Tensor:
        host = torch.from_numpy(array)
        if self._group.device.type == "cuda":  # from pinned memory, so that the host need not wait for the copy
            return host.pin_memory().to(self._group.device, non_blocking=True)
        return host

    def _note(self, step: int, stats: Tensor) -> None:
        values = {"lr": self._optimizer.lr(step - 1)}
        if self._config.k_decay_steps:
            values["k"] = float(self._units[0].coder.k)
        self._points.note(step, self._of_all_coders(stats), values)

    def _of_all_coders(self, stats: Tensor) -> Tensor:
        """The rows of all processes' coders, so that all of them see the same, and fail alike."""
        if self._exchange is None:
            return stats
        own = {unit.name for unit in self._units}
        table = stats.new_zeros(len(self._placement.coders), stats.shape[1])
        table[[row for row, coder in enumerate(self._placement.coders) if coder.name in own]] = stats
        self._group.add_up([table])
        return table


def _of_kept(kept: Tensor | None, consumer: Consumer, hookpoint: str, x_ND: Tensor, y_NE: Tensor) -> None:
    """Hand on the rows that count."""
    if kept is not None:
        same = x_ND is y_NE
        y_NE = y_NE[kept]
        x_ND = y_NE if same else x_ND[kept]
    consumer(hookpoint, x_ND, y_NE)
