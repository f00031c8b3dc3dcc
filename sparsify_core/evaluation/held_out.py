"""The held-out tokens, and their walk in batches."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sparsify_core.config import RunConfig
from sparsify_core.data.exclude import kept_positions
from sparsify_core.data.sequences import token_sha256


def sequences_per_forward(config: RunConfig) -> int:
    """Sequences that an evaluation takes at a time: coders that train on a batch in chunks have no memory for more."""
    return max(1, config.batch_size // config.micro_acc_steps)


class Batch(NamedTuple):
    """Whole sequences on the device.

    `ids_BL` are token ids; `kept` are the rows of B * L that count, ascending (None: all); `first` is the flat position
    of the batch's first token in the held-out tokens.
    """

    ids_BL: Tensor
    kept: Tensor | None
    first: int

    @property
    def rows(self) -> Tensor:
        """int64, the rows that count, also where all do."""
        return torch.arange(self.ids_BL.numel(), device=self.ids_BL.device) if self.kept is None else self.kept


@dataclass(frozen=True)
class HeldOut:
    """The held-out tokens (n, L) and what is left out of them."""

    tokens: npt.NDArray[np.int64]
    exclude_tokens: Sequence[int]
    exclude_first: int

    @property
    def sha256(self) -> str:
        return token_sha256(self.tokens)

    @property
    def num_next_tokens(self) -> int:
        """Tokens that have others before them in their sequence: what a cross-entropy is taken over."""
        return self.tokens[:, 1:].size

    def batches(self, size: int, device: torch.device) -> Iterator[Batch]:
        """Yield all sequences in order, `size` at a time."""
        for start in range(0, len(self.tokens), size):
            ids = self.tokens[start : start + size]
            kept = kept_positions(ids, exclude_tokens=self.exclude_tokens, exclude_first=self.exclude_first)
            yield Batch(
                torch.from_numpy(ids).to(device),
                None if kept is None else torch.from_numpy(kept).to(device),
                start * self.tokens.shape[1],
            )
