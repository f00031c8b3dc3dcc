"""Which token positions count. The first positions of a sequence and chosen token ids can be left out."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from sparsify_core.config import RunConfig
from sparsify_core.data.tokenize import load_tokenizer
from sparsify_core.errors import ConfigError


def excluded_tokens(config: RunConfig) -> tuple[int, ...]:
    """The token ids that are left out: `exclude_tokens`, and with `exclude_special_tokens` BOS, EOS and PAD, ascending.

    Raises ModelError when the tokenizer is asked for and missing, ConfigError when it names none of the three.
    """
    if not config.exclude_special_tokens:
        return tuple(config.exclude_tokens)
    tokenizer: Any = load_tokenizer(config.model, config.revision)
    named = (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id)
    special = {int(token) for token in named if token is not None}
    if not special:
        raise ConfigError(
            f"exclude_special_tokens has no effect: the tokenizer of {config.model} names no BOS, EOS or PAD token, "
            "give ids in exclude_tokens"
        )
    return tuple(sorted({*config.exclude_tokens, *special}))


def kept_positions(
    input_ids: npt.NDArray[np.int64], *, exclude_tokens: Sequence[int], exclude_first: int
) -> npt.NDArray[np.int64] | None:
    """Flat positions in `input_ids` (B, L) that count, ascending; None when all do (nothing is copied then)."""
    if not exclude_tokens and not exclude_first:
        return None
    keep = ~np.isin(input_ids, np.asarray(exclude_tokens, dtype=np.int64))
    keep[:, :exclude_first] = False
    return np.flatnonzero(keep)
