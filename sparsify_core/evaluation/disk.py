"""Load coders, model and text, and evaluate."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from sparsify_core.capture.device import choose_device
from sparsify_core.capture.load import load_model
from sparsify_core.config import RunConfig
from sparsify_core.data.exclude import excluded_tokens
from sparsify_core.data.rows import check_vocabulary
from sparsify_core.data.sequences import load_sequences
from sparsify_core.errors import DataError, ModelError
from sparsify_core.evaluation.coders import evaluate_coders
from sparsify_core.evaluation.held_out import HeldOut, sequences_per_forward
from sparsify_core.evaluation.result import Evaluation
from sparsify_core.formats.sparsify import load_coder
from sparsify_core.quiet import quiet_libraries


def evaluate_folders(
    folders: Mapping[str, Path],
    config: RunConfig,
    *,
    is_held_out: bool,
    downstream: bool | None,
    warn: Callable[[str], None],
    progress: Callable[[int, int], None],
) -> Evaluation:
    """Evaluate the coders in `folders`, by name.

    Args:
        config: says which model and text, and what is left out.
        is_held_out: whether `config` is that of a run of ours, which held tokens out of this text; of other text, all
            that `config` leaves to train on is taken.
        downstream: None measures it when the model has a head.

    Raises SparsifyError when something cannot be loaded or does not fit.
    """
    quiet_libraries()
    device = choose_device(config.device)
    coders = {name: load_coder(folder).to(device) for name, folder in folders.items()}
    model, has_head = _load_model(config, device, downstream=downstream, warn=warn)
    base: Any = model.base_model
    check_vocabulary(config, int(base.get_input_embeddings().num_embeddings))
    tokens = _tokens(config, is_held_out=is_held_out)
    try:
        return evaluate_coders(
            model,
            coders,
            HeldOut(tokens, excluded_tokens(config), config.exclude_first),
            downstream=has_head,
            batch_size=sequences_per_forward(config),
            progress=progress,
        )
    except torch.OutOfMemoryError as error:
        raise ModelError("the GPU has not enough memory: lower batch_size, or choose fewer coders") from error


def _load_model(
    config: RunConfig, device: torch.device, *, downstream: bool | None, warn: Callable[[str], None]
) -> tuple[nn.Module, bool]:
    """The model, and whether it has its head."""
    if downstream is False:
        return load_model(config, device), False
    try:
        return load_model(config.model_copy(update={"eval_downstream": True}), device), True
    except ModelError as error:
        if downstream:
            raise
        model = load_model(config, device)
        warn(f"downstream metrics are left out: {error}")
        return model, False


def _tokens(config: RunConfig, *, is_held_out: bool) -> npt.NDArray[np.int64]:
    """(n, L) ids, see `evaluate_folders`.

    Raises DataError when there is not one sequence.
    """
    if is_held_out:
        tokens = load_sequences(config).held_out_tokens()
    else:
        sequences = load_sequences(config.model_copy(update={"eval_tokens": 0}))
        tokens = sequences.rows.take(sequences.train)
    if not len(tokens):
        raise DataError(
            f"dataset {config.dataset} and eval_tokens = {config.eval_tokens} do not give one sequence of "
            f"{config.ctx_len} tokens: raise eval_tokens, lower ctx_len, or give another dataset"
        )
    return tokens
