"""Where token sequences lie: in memory, in a memory-mapped file, or in a dataset on disk."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from sparsify_core.config import RunConfig
from sparsify_core.errors import DataError

Indices = npt.NDArray[np.int64]
MemmapDtype = Literal["uint16", "uint32"]


class Rows(Protocol):
    """Token sequences of one length."""

    @property
    def length(self) -> int:
        """Tokens per sequence."""
        ...

    def take(self, indices: Indices) -> npt.NDArray[np.int64]:
        """(len(indices), length) token ids."""
        ...


class ArrayRows:
    """Sequences in an array (n, length) of any integer type, also a memory-mapped one."""

    def __init__(self, tokens: npt.NDArray[Any]) -> None:
        self._tokens = tokens
        self.length = int(tokens.shape[1])

    def __len__(self) -> int:
        return len(self._tokens)

    def take(self, indices: Indices) -> npt.NDArray[np.int64]:
        return self._tokens[indices].astype(np.int64)


class DatasetRows:
    """The `input_ids` column of a Hugging Face dataset; its rows must be equally long."""

    def __init__(self, dataset: Any, name: str) -> None:
        if not len(dataset):
            raise DataError(f"dataset {name} has no sequences")
        self._column = dataset.select_columns(["input_ids"]).with_format("numpy")
        self._name = name
        self.length = len(self._column[0]["input_ids"])

    def __len__(self) -> int:
        return len(self._column)

    def take(self, indices: Indices) -> npt.NDArray[np.int64]:
        return stack_rows(list(self._column[indices.tolist()]["input_ids"]), self.length, self._name)


def stack_rows(rows: Sequence[Any], length: int, name: str) -> npt.NDArray[np.int64]:
    """Token ids of the dataset `name` as (n, length). Raises DataError when one of them has another length."""
    for row in rows:
        if len(row) != length:
            raise DataError(
                f"dataset {name} has input_ids of different lengths ({len(row)} and {length}): "
                "cut them to one length, or give the text instead"
            )
    return np.stack(rows).astype(np.int64)


def memmap_rows(path: Path, ctx_len: int, dtype: MemmapDtype) -> ArrayRows:
    """A .bin file of token ids in little-endian `dtype`, cut into sequences; an incomplete last one is left out.

    Raises DataError when it holds no whole sequence, or when its size shows that it was written in another dtype.
    """
    kind = np.dtype(dtype).newbyteorder("<")
    size_bytes = path.stat().st_size
    num_rows = size_bytes // (kind.itemsize * ctx_len)
    if num_rows == 0:
        raise DataError(f"{path} is shorter than one sequence of {ctx_len} {dtype} tokens")
    if size_bytes % kind.itemsize:
        raise DataError(f"{path} has {size_bytes} bytes, which is no whole number of {dtype} tokens: set memmap_dtype")
    return ArrayRows(np.memmap(path, dtype=kind, mode="r", shape=(num_rows, ctx_len)))


def check_vocabulary(config: RunConfig, num_tokens: int) -> None:
    """Raise DataError when a .bin memmap cannot hold the ids of the model's `num_tokens` tokens."""
    largest = int(np.iinfo(config.memmap_dtype).max)
    if config.dataset.endswith(".bin") and num_tokens > largest + 1:
        raise DataError(
            f"{config.model} has a vocabulary of {num_tokens:,} tokens, but {config.memmap_dtype} ids end at "
            f"{largest:,}, so {config.dataset} cannot be its text: write it as uint32 and set memmap_dtype uint32"
        )


def check_ids(config: RunConfig, ids: npt.NDArray[np.int64], max_token_id: int) -> None:
    """Raise DataError when one of the ids is `max_token_id`, the model's vocabulary, or more."""
    if int(ids.max()) >= max_token_id:
        raise DataError(
            f"dataset {config.dataset} has token id {ids.max()}, but {config.model} knows only ids below "
            f"{max_token_id}: it was tokenized for another model"
        )
