"""How large sparse coders are, by their shape alone: for floors, checkpoints and plans. Torch-free."""

from collections.abc import Iterable
from dataclasses import dataclass

UPDATE_AT_ONCE_FROM_BYTES = 2**30
"""Gradients of matrices from this size on are never written to memory on CUDA, where they may be left out. Below, other
things save more: tokens in blocks that fit the cache, and programs that do less each."""

_COPIES = 3
"""Tensors as large as the weights in a checkpoint: themselves and at most two of the optimizer's."""
_INSPECTION_BYTES_PER_LATENT = 8 + 4 + 8 * 8 + 4


@dataclass(frozen=True)
class CoderSize:
    """Widths, number of latents and of active ones of a coder."""

    d_in: int
    d_out: int
    num_latents: int
    k: int
    has_skip: bool = False

    @property
    def num_parameters(self) -> int:
        biases = self.num_latents + self.d_out
        skip = self.d_in * self.d_out if self.has_skip else 0
        return self.num_latents * (self.d_in + self.d_out) + biases + skip

    @property
    def matrix_bytes(self) -> int:
        """Of encoder and decoder in float32; of their gradients too."""
        return 4 * self.num_latents * (self.d_in + self.d_out)


def checkpoint_size(coders: Iterable[CoderSize]) -> int:
    """About the bytes of a checkpoint of these coders, with the optimizer's state and the look at latents."""
    return sum(4 * _COPIES * c.num_parameters + _INSPECTION_BYTES_PER_LATENT * c.num_latents for c in coders)
