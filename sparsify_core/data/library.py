"""Data preparation for programs written against upstream: its `chunk_and_tokenize` and `MemmapDataset`."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from sparsify_core.data.tokenize import sequence_length, tokenize_all
from sparsify_core.errors import DataError


def chunk_and_tokenize(
    data: Any,
    tokenizer: Any,
    *,
    format: str = "torch",  # noqa: A002 - upstream's name
    num_proc: int = (os.cpu_count() or 1) // 2,
    text_key: str = "text",
    max_seq_len: int = 2048,
    return_final_batch: bool = False,
    load_from_cache_file: bool = True,
) -> Any:
    """A `datasets.Dataset` or DatasetDict of texts -> one of `input_ids` of `max_seq_len` tokens each.

    Token ids are upstream's. Different from it: only the column `input_ids` comes back, and a last batch of documents
    that is too short for one sequence is left out instead of failing.

    Args:
        format: of the rows, for `Dataset.with_format`.
        return_final_batch: keep the shorter last sequence of every 2,048 documents.

    Raises DataError when a split has not one sequence.
    """
    length = sequence_length(tokenizer, max_seq_len)
    chunked = tokenize_all(
        data,
        tokenizer,
        text_key,
        length,
        num_proc,
        keep_last=return_final_batch,
        use_cache=load_from_cache_file,
    )
    return chunked.with_format(format, columns=["input_ids"])


class MemmapDataset(Dataset[dict[str, Tensor]]):
    """Token ids in a binary file, cut into sequences of `ctx_len`; items are {"input_ids": int64 (ctx_len)}.

    Args:
        max_examples: use at most this many sequences.
        dtype: number format of the ids in the file.

    Raises DataError when the file cannot be read, or holds no whole number of sequences.
    """

    def __init__(
        self, data_path: str | Path, ctx_len: int, max_examples: int | None = None, dtype: npt.DTypeLike = np.uint16
    ) -> None:
        try:
            tokens: npt.NDArray[Any] = np.memmap(data_path, dtype=dtype, mode="r")
        except (OSError, ValueError) as error:
            raise DataError(f"{data_path} cannot be read as {np.dtype(dtype)} token ids: {error}") from error
        if len(tokens) % ctx_len:
            raise DataError(f"{data_path} has {len(tokens)} tokens, which is no multiple of ctx_len = {ctx_len}")
        self.mmap = tokens.reshape(-1, ctx_len)[:max_examples]

    def __len__(self) -> int:
        return len(self.mmap)

    def __getitem__(self, idx: Any) -> dict[str, Tensor]:
        return {"input_ids": torch.from_numpy(self.mmap[idx].astype(np.int64))}

    def select(self, rng: range) -> "MemmapDataset":
        """The sequences `rng`, whatever its step."""
        return self._of(self.mmap[rng.start : rng.stop : rng.step])

    def shard(self, num_shards: int, shard_id: int) -> "MemmapDataset":
        """The `shard_id`-th of `num_shards` contiguous parts whose sizes differ by at most one."""
        return self._of(np.array_split(self.mmap, num_shards)[shard_id])

    def _of(self, rows: npt.NDArray[Any]) -> "MemmapDataset":
        part = MemmapDataset.__new__(MemmapDataset)
        part.mmap = rows
        return part
