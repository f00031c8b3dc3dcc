"""The sequences of a run: which are trained on, in which order, and which are held out."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sparsify_core.config import RunConfig
from sparsify_core.data.rows import ArrayRows, DatasetRows, Indices, Rows, memmap_rows
from sparsify_core.data.source import check_column, open_dataset
from sparsify_core.data.stream import StreamRows
from sparsify_core.data.tokenize import load_tokenizer, sequence_length, tokenize_all, tokenize_some
from sparsify_core.errors import DataError

_LAZY_LIMIT_TOKENS = 50_000_000
"""Up to here the tokens of a run are made in memory at its start; beyond, the dataset is tokenized once and cached."""

_MAX_HELD_OUT_FRAC = 0.1


@dataclass(frozen=True)
class Sequences:
    """`train` and `held_out` are disjoint row numbers; `train` is in training order, epoch after epoch."""

    rows: Rows
    train: Indices
    held_out: Indices

    def num_steps(self, sequences_per_step: int) -> int:
        """Whole optimizer steps in the training data; the remainder is dropped."""
        return len(self.train) // sequences_per_step

    def held_out_tokens(self) -> npt.NDArray[np.int64]:
        """(n, length) token ids."""
        return self.rows.take(self.held_out)


def load_sequences(config: RunConfig) -> Sequences:
    """Open, tokenize, shuffle and split. Raises DataError (or ModelError for the tokenizer)."""
    if config.is_streaming:
        return _load_stream(config)
    rows = _load_rows(config)
    if not len(rows):
        raise DataError(f"dataset {config.dataset} has no whole sequence of {config.ctx_len} tokens")
    return split_in_order(rows, np.random.default_rng(config.shuffle_seed).permutation(len(rows)), config)


def split_in_order(rows: Rows, order: Indices, config: RunConfig) -> Sequences:
    """Hold out the last of the row numbers `order`, as many as `eval_tokens` asks for; train on those before them."""
    order = order[: config.max_examples]
    num_held_out = min(_wanted_held_out(config, rows.length), int(len(order) * _MAX_HELD_OUT_FRAC))
    split = len(order) - num_held_out
    return Sequences(rows, _repeat(order[:split], config, rows.length), order[split:])


def _repeat(train: Indices, config: RunConfig, length: int) -> Indices:
    """The training sequences of all epochs, each epoch in an order of its own, up to the token budget."""
    budget = len(train) * config.num_epochs
    if config.max_tokens is not None:
        budget = min(budget, config.max_tokens // length)
    epochs, have = [train], len(train)
    while have < budget:
        shuffled = np.random.default_rng([config.shuffle_seed, len(epochs)]).permutation(train)
        epochs.append(shuffled)
        have += len(shuffled)
    return np.concatenate(epochs)[:budget]


def _load_stream(config: RunConfig) -> Sequences:
    rows = StreamRows(config)
    num_train = (config.max_tokens or 0) // rows.length  # RunConfig requires max_tokens for a stream
    return Sequences(rows, rows.num_held_out + np.arange(num_train), np.arange(rows.num_held_out))


def token_sha256(tokens: npt.NDArray[np.int64]) -> str:
    """Identity of a token set: sha256 over its ids as little-endian int64, in order."""
    return hashlib.sha256(np.ascontiguousarray(tokens, dtype="<i8").tobytes()).hexdigest()


def _wanted_held_out(config: RunConfig, length: int) -> int:
    return max(1, config.eval_tokens // length) if config.eval_tokens else 0


def _load_rows(config: RunConfig) -> ArrayRows | DatasetRows:
    path = Path(config.dataset).expanduser()
    if path.suffix == ".bin":
        if not path.is_file():
            raise DataError(f"dataset {config.dataset} does not exist: check the path")
        return memmap_rows(path, config.ctx_len, config.memmap_dtype)
    dataset = open_dataset(config)
    if "input_ids" in dataset.column_names:
        return DatasetRows(dataset, config.dataset)
    check_column(dataset[0], config.text_column, config.dataset)
    return _tokenize(dataset, config)


def _tokenize(dataset: Any, config: RunConfig) -> ArrayRows | DatasetRows:
    tokenizer = load_tokenizer(config.model, config.revision)
    length = sequence_length(tokenizer, config.ctx_len)
    needed = _needed_sequences(config, length)
    if needed is not None and needed * length <= _LAZY_LIMIT_TOKENS:
        return ArrayRows(
            tokenize_some(
                dataset, tokenizer, config.text_column, length, num_sequences=needed, seed=config.shuffle_seed
            )
        )
    num_proc = config.data_preprocessing_num_proc
    return DatasetRows(tokenize_all(dataset, tokenizer, config.text_column, length, num_proc), config.dataset)


def _needed_sequences(config: RunConfig, length: int) -> int | None:
    """Sequences that training and evaluation together will use; None means all."""
    if config.max_tokens is None:
        return config.max_examples
    held_out = _wanted_held_out(config, length)
    # The share that may be held out is limited, so a short run needs ten times its held-out sequences.
    return max(config.max_tokens // length + held_out, int(held_out / _MAX_HELD_OUT_FRAC) + 1)
