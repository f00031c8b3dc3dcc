"""Which token positions count. The first positions of a sequence and chosen token ids can be left out."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt


def kept_positions(
    input_ids: npt.NDArray[np.int64], *, exclude_tokens: Sequence[int], exclude_first: int
) -> npt.NDArray[np.int64] | None:
    """Flat positions in `input_ids` (B, L) that count, ascending; None when all do (nothing is copied then)."""
    if not exclude_tokens and not exclude_first:
        return None
    keep = ~np.isin(input_ids, np.asarray(exclude_tokens, dtype=np.int64))
    keep[:, :exclude_first] = False
    return np.flatnonzero(keep)
