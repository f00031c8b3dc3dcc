"""Text -> sequences of exactly ctx_len tokens.

Documents are joined as `eos doc eos doc ...`, tokenized and cut; the incomplete last sequence of each batch of
documents is left out (upstream's chunk_and_tokenize). A tokenizer that adds special tokens adds them to every sequence.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from sparsify_core.capture.load import load_failure
from sparsify_core.errors import DataError, ModelError

BATCH_DOCUMENTS = 2048
"""Documents joined into one text when a whole dataset is tokenized, as upstream does."""

_LAZY_BATCH_DOCUMENTS = 64
_FALLBACK_SEPARATOR = "<|endoftext|>"


def load_tokenizer(model: str, revision: str | None) -> Any:
    """The model's tokenizer. Raises ModelError when there is none."""
    import transformers  # slow to import, and --help must be instant

    try:
        tokenizer: Any = transformers.AutoTokenizer.from_pretrained(model, revision=revision)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise ModelError(load_failure("tokenizer of", model, error)) from error
    return tokenizer


def sequence_length(tokenizer: Any, ctx_len: int) -> int:
    """ctx_len, or what the model can take if that is less."""
    return min(int(tokenizer.model_max_length), ctx_len)


def chunk_texts(tokenizer: Any, texts: Iterable[str], length: int) -> npt.NDArray[np.int32]:
    """(n, length) token ids of the joined documents; n may be 0."""
    separator = tokenizer.eos_token or _FALLBACK_SEPARATOR
    encoded = tokenizer(
        separator.join(["", *texts]),
        max_length=length,
        truncation=True,
        return_overflowing_tokens=True,
        return_attention_mask=False,
    )
    whole = [chunk for chunk in encoded["input_ids"] if len(chunk) == length]
    return np.array(whole, dtype=np.int32).reshape(-1, length)


def tokenize_all(dataset: Any, tokenizer: Any, text_column: str, length: int, num_proc: int | None) -> Any:
    """The whole dataset as a dataset with the one column `input_ids`; cached by `datasets`.

    Raises DataError when no text fills one sequence.
    """

    def chunk(batch: dict[str, list[str]]) -> dict[str, list[list[int]]]:
        return {"input_ids": chunk_texts(tokenizer, batch[text_column], length).tolist()}

    chunked = dataset.map(
        chunk,
        batched=True,
        batch_size=BATCH_DOCUMENTS,
        num_proc=num_proc or None,
        remove_columns=dataset.column_names,
        desc="Tokenizing",
    )
    if not len(chunked):
        raise DataError(f"the text is shorter than one sequence of {length} tokens: lower ctx_len or give more text")
    return chunked


def tokenize_some(
    dataset: Any, tokenizer: Any, text_column: str, length: int, *, num_sequences: int, seed: int
) -> npt.NDArray[np.int32]:
    """At least `num_sequences` sequences (or all there are) from documents in random order; the rest stays text.

    Raises DataError when no text fills one sequence.
    """
    order = np.random.default_rng(seed).permutation(len(dataset))
    column = dataset.select_columns([text_column])
    parts: list[npt.NDArray[np.int32]] = []
    have = 0
    for start in range(0, len(order), _LAZY_BATCH_DOCUMENTS):
        texts = column[order[start : start + _LAZY_BATCH_DOCUMENTS].tolist()][text_column]
        parts.append(chunk_texts(tokenizer, texts, length))
        have += len(parts[-1])
        if have >= num_sequences:
            break
    if not have:
        raise DataError(f"the text is shorter than one sequence of {length} tokens: lower ctx_len or give more text")
    return np.concatenate(parts)
