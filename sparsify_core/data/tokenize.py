"""Text -> sequences of exactly ctx_len tokens.

Documents are joined as `eos doc eos doc ...`, tokenized and cut; the last sequence of each batch of documents, nearly
always incomplete, is left out (upstream's chunk_and_tokenize, token for token). A tokenizer that adds special tokens
adds them to every sequence.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from sparsify_core.capture.load import LOAD_ERRORS, load_failure, model_source
from sparsify_core.errors import DataError, ModelError

BATCH_DOCUMENTS = 2048
"""Documents joined into one text when a whole dataset is tokenized, as upstream does."""

_LAZY_BATCH_DOCUMENTS = 64
_FALLBACK_SEPARATOR = "<|endoftext|>"


def load_tokenizer(model: str, revision: str | None) -> Any:
    """The model's tokenizer. Raises ModelError when there is none."""
    import transformers  # slow to import, and --help must be instant

    try:
        tokenizer: Any = transformers.AutoTokenizer.from_pretrained(**model_source(model), revision=revision)
    except LOAD_ERRORS as error:
        raise ModelError(load_failure("tokenizer of", model, error)) from error
    return tokenizer


def sequence_length(tokenizer: Any, ctx_len: int) -> int:
    """ctx_len, or what the model can take if that is less."""
    return min(int(tokenizer.model_max_length), ctx_len)


def chunk_texts(tokenizer: Any, texts: Iterable[str], length: int) -> npt.NDArray[np.int32]:
    """(n, length) token ids of the joined documents; n may be 0."""
    return np.array(cut_texts(tokenizer, texts, length)[:-1], dtype=np.int32).reshape(-1, length)


def cut_texts(tokenizer: Any, texts: Iterable[str], length: int) -> list[list[int]]:
    """The joined documents in sequences of `length` tokens, and the last one, which is usually shorter."""
    separator = tokenizer.eos_token or _FALLBACK_SEPARATOR
    encoded = tokenizer(
        separator.join(["", *texts]),
        max_length=length,
        truncation=True,
        return_overflowing_tokens=True,
        return_attention_mask=False,
    )
    ids: list[Any] = encoded["input_ids"]
    if not ids or isinstance(ids[0], list):
        return ids
    # Tokenizers without a Rust half return the first sequence, and everything behind it in one list.
    rest: list[int] = encoded.get("overflowing_tokens", [])
    return [ids, *(rest[start : start + length] for start in range(0, len(rest), length))]


def tokenize_all(
    dataset: Any,
    tokenizer: Any,
    text_column: str,
    length: int,
    num_proc: int | None,
    *,
    keep_last: bool = False,
    use_cache: bool = True,
) -> Any:
    """The whole dataset, or every split of it, as a dataset with the one column `input_ids`; cached by `datasets`.

    Args:
        keep_last: also keep the shorter last sequence of every batch of documents.
        use_cache: whether a result cached earlier may be taken.

    Raises DataError when no text fills one sequence.
    """

    def chunk(batch: dict[str, list[str]]) -> dict[str, list[list[int]]]:
        ids = cut_texts(tokenizer, batch[text_column], length)
        return {"input_ids": ids if keep_last else ids[:-1]}

    splits = dataset if isinstance(dataset, dict) else {"": dataset}
    chunked = dataset.map(
        chunk,
        batched=True,
        batch_size=BATCH_DOCUMENTS,
        num_proc=num_proc or None,
        remove_columns=sorted({column for split in splits.values() for column in split.column_names}),
        load_from_cache_file=use_cache,
        desc="Tokenizing",
    )
    if not all(len(split) for split in (chunked.values() if isinstance(chunked, dict) else [chunked])):
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
