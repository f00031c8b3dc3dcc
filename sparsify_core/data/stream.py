"""Sequences of a dataset that is read from the front and never held: `streaming`.

The first documents give the held-out sequences and are then skipped for good, so not one of their tokens is trained
on. What follows is shuffled within a moving window, anew in every epoch. A run that goes on behind a checkpoint finds
its place by reading and tokenizing again what was consumed.
"""

from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from sparsify_core.config import RunConfig
from sparsify_core.data.rows import Indices, stack_rows
from sparsify_core.data.source import check_column, open_stream, reading
from sparsify_core.data.tokenize import chunk_texts, load_tokenizer, sequence_length
from sparsify_core.errors import DataError

_SHUFFLE_DOCUMENTS = 1000
"""Documents in the window that is shuffled."""

_BATCH_DOCUMENTS = 512
"""Documents joined into one text; each batch loses its last sequence."""

_HELD_OUT_BATCH_DOCUMENTS = 16
"""The same for the held-out sequences, which should take few documents out of the training data."""


class StreamRows:
    """Rows below `num_held_out` are the held-out sequences, the others the training sequences in training order.

    Taking rows in ascending order reads on; to go back, the dataset is opened anew.

    Raises DataError when the data cannot be read, or does not fill the held-out sequences.
    """

    def __init__(self, config: RunConfig) -> None:
        self._config = config
        self._dataset = open_stream(config)
        first = next(self._documents(self._dataset), None)
        if first is None:
            raise DataError(f"dataset {config.dataset} is empty")
        self._tokenizer: Any = None
        if "input_ids" in first:
            self.length = len(first["input_ids"])
        else:
            check_column(first, config.text_column, config.dataset)
            self._tokenizer = load_tokenizer(config.model, config.revision)
            self.length = sequence_length(self._tokenizer, config.ctx_len)
        self.num_held_out = max(1, config.eval_tokens // self.length) if config.eval_tokens else 0
        self._held_out, self._num_skipped = self._hold_out()
        self._training, self._next = self._train(), self.num_held_out

    def take(self, indices: Indices) -> npt.NDArray[np.int64]:
        """(len(indices), length) token ids of the ascending row numbers `indices`, all held out or none.

        Raises DataError when the stream ends before them.
        """
        if not len(indices) or indices[0] < self.num_held_out:
            return self._held_out[indices]
        if indices[0] < self._next:
            self._training, self._next = self._train(), self.num_held_out
        rows = []
        for index in indices.tolist():
            row = next(islice(self._training, index - self._next, None), None)
            if row is None:
                raise DataError(
                    f"dataset {self._config.dataset} ended before {self._config.max_tokens} tokens of max_tokens, "
                    f"after num_epochs = {self._config.num_epochs}: lower max_tokens or raise num_epochs"
                )
            self._next = index + 1
            rows.append(row)
        return np.stack(rows)

    def _hold_out(self) -> tuple[npt.NDArray[np.int64], int]:
        """(num_held_out, L) sequences from the front, and the number of documents they were made of."""
        documents = self._documents(self._dataset)
        parts = [np.empty((0, self.length), dtype=np.int64)]
        num_documents = 0
        while sum(map(len, parts)) < self.num_held_out:
            batch = list(islice(documents, _HELD_OUT_BATCH_DOCUMENTS))
            if not batch:
                raise DataError(
                    f"dataset {self._config.dataset} does not fill the {self.num_held_out} held-out sequences: "
                    "lower eval_tokens or give more text"
                )
            num_documents += len(batch)
            parts.append(self._cut(batch))
        return np.concatenate(parts)[: self.num_held_out], num_documents

    def _train(self) -> Iterator[npt.NDArray[np.int64]]:
        """Yield the training sequences (L,) of all epochs."""
        rest = self._dataset.skip(self._num_skipped)
        for epoch in range(self._config.num_epochs):
            shuffled = rest.shuffle(seed=self._config.shuffle_seed + epoch, buffer_size=_SHUFFLE_DOCUMENTS)
            documents = self._documents(shuffled)
            while batch := list(islice(documents, _BATCH_DOCUMENTS)):
                yield from self._cut(batch)

    def _documents(self, dataset: Any) -> Iterator[dict[str, Any]]:
        with reading(self._config.dataset):
            yield from dataset

    def _cut(self, documents: list[dict[str, Any]]) -> npt.NDArray[np.int64]:
        """(n, L) token ids."""
        if self._tokenizer is None:
            return stack_rows([row["input_ids"] for row in documents], self.length, self._config.dataset)
        texts = [document[self._config.text_column] for document in documents]
        return chunk_texts(self._tokenizer, texts, self.length).astype(np.int64)
