"""Trainer for programs written against upstream: a model and tokens that the program holds already."""

import os
from collections.abc import Sized
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError
from torch import nn

from sparsify_core.config import RunConfig, TrainConfig
from sparsify_core.config.run import GIVEN
from sparsify_core.data.library import MemmapDataset
from sparsify_core.data.rows import ArrayRows, DatasetRows
from sparsify_core.data.sequences import Sequences, split_in_order
from sparsify_core.errors import ConfigError, DataError
from sparsify_core.evaluation.coders import has_head
from sparsify_core.flags import explain
from sparsify_core.formats.library import SparseCoder
from sparsify_core.formats.tree import find_coders
from sparsify_core.rundir import RunDir
from sparsify_core.train.run import Sources, next_attempt, run_attempt


class Trainer:
    """`Trainer(TrainConfig(SaeConfig(...)), tokens, model).fit()`.

    Trains on `dataset` in its own order; what `eval_tokens` holds out is taken from its end. The run's folder is
    `save_dir/run_name` (`unnamed` without a name): see sparsify_core.rundir for what is in it. As many processes as
    torchrun starts train together.

    Args:
        cfg: a TrainConfig, or a RunConfig, of which what is about loading model and data is not used.
        dataset: a `datasets.Dataset` with the column input_ids, every row equally long, or a MemmapDataset.
        model: from transformers, on the device to train on; with its head for the losses ce and kl, and for
            eval_downstream. It is frozen.

    Raises ConfigError or DataError when they do not fit.
    """

    def __init__(self, cfg: TrainConfig, dataset: Any, model: nn.Module) -> None:
        self.model = model
        self._rows = _rows(dataset)
        needs_head = cfg.eval_downstream or cfg.loss_fn != "fvu"
        if needs_head and not has_head(model):
            raise ConfigError(
                f"{'eval_downstream' if cfg.eval_downstream else f'loss_fn = {cfg.loss_fn}'} needs the model's "
                f"predictions, but {type(model).__name__} has no head: give the causal language model"
            )
        self.cfg = _run_config(cfg, model, self._rows.length)
        self.run_dir = RunDir(Path(cfg.save_dir, cfg.run_name or "unnamed"))

    def fit(self) -> None:
        """Train to the end, saving on the way. Raises SparsifyError for what went wrong, after it was recorded."""
        if self.run_dir.published() and not self.cfg.resume:
            raise ConfigError(f"{self.run_dir.root} already holds checkpoints: give another run_name or save_dir")
        sources = Sources(lambda _, device: self._frozen(device), self._sequences)
        run_attempt(self.cfg, self.run_dir, attempt=next_attempt(self.run_dir), sources=sources)

    @property
    def saes(self) -> dict[str, SparseCoder]:
        """The coders of the newest checkpoint by name, on the CPU; none before `fit`."""
        published = self.run_dir.published()
        found = find_coders(published[-1].root) if published else {}
        return {name: SparseCoder.load_from_disk(path) for name, path in found.items()}

    def _frozen(self, device: torch.device) -> nn.Module:
        self.model.requires_grad_(False)
        return self.model.eval().to(device)

    def _sequences(self, config: RunConfig) -> Sequences:
        return split_in_order(self._rows, np.arange(len(self._rows)), config)


def _run_config(cfg: TrainConfig, model: nn.Module, ctx_len: int) -> RunConfig:
    """`cfg` as the configuration of a run; what is about loading is not used, and so not taken over."""
    device = next(model.parameters()).device.type
    if device not in ("cpu", "cuda") or cfg.device not in ("auto", device):
        raise ConfigError(f"the model is on {device} and device is {cfg.device}: move the model to it, or use auto")
    index, rank = next(model.parameters()).device.index or 0, int(os.environ.get("LOCAL_RANK", "0"))
    if device == "cuda" and index != rank:
        raise ConfigError(f"the model is on cuda:{index}, but process {rank} trains on cuda:{rank}: move it there")
    kept = {*TrainConfig.model_fields, "max_examples", "resume", "revision"}
    values = {key: value for key, value in cfg.model_dump().items() if key in kept}
    name = getattr(model.config, "_name_or_path", "") or GIVEN
    values |= {"model": name, "dataset": GIVEN, "ctx_len": ctx_len, "device": device}
    try:
        return RunConfig.model_validate(values)
    except ValidationError as error:
        raise ConfigError(explain(error)) from None


def _rows(dataset: Any) -> ArrayRows | DatasetRows:
    if isinstance(dataset, MemmapDataset):
        return ArrayRows(dataset.mmap)
    if not isinstance(dataset, Sized) or "input_ids" not in getattr(dataset, "column_names", ()):
        raise DataError(f"the dataset, a {type(dataset).__name__}, has no column input_ids: see chunk_and_tokenize")
    return DatasetRows(dataset, GIVEN)
