"""Training loss of a sparse coder as sums over tokens.

Sums, not ratios: the variance that the FVU is divided by is that of the whole optimizer step, known only when all
micro-batches of all processes have been seen. Dividing the summed gradient once at the end makes any cut into
micro-batches, accumulation steps or processes equal to one big batch (upstream averages ratios, which is not equal).
"""

from typing import NamedTuple

import torch
from torch import Tensor

from sparsify_core.model.coder import SparseCoder


class LossSums(NamedTuple):
    """Of one micro-batch. `loss` carries the graph, everything else is detached.

    `indices_NK` and `acts_NK` are the active latents; `error` is the summed squared error.
    """

    loss: Tensor
    error: Tensor
    acts_NK: Tensor
    indices_NK: Tensor


def loss_sums(coder: SparseCoder, x_ND: Tensor, y_NE: Tensor) -> LossSums:
    """Summed squared error of reconstructing `y_NE` from `x_ND`, both float32."""
    latents = coder.encode(x_ND)
    error = (y_NE - coder.reconstruct(x_ND, latents)).square().sum()
    return LossSums(error, error.detach(), latents.acts_NK.detach(), latents.indices_NK)


class Moments:
    """Streaming sum of squared deviations from the mean of tokens that come in parts, in float64 around a fixed shift.

    Around a shift near the mean the subtraction at the end loses no digits, and partial sums can simply be added, also
    across processes.
    """

    def __init__(self, shift_D: Tensor) -> None:
        self._shift_D = shift_D
        self.count = torch.zeros((), dtype=torch.float64, device=shift_D.device)
        self.sum_D = torch.zeros_like(shift_D, dtype=torch.float64)
        self.square = torch.zeros((), dtype=torch.float64, device=shift_D.device)

    def add(self, y_ND: Tensor) -> None:
        deviation_ND = y_ND - self._shift_D
        self.count += len(y_ND)
        self.sum_D += deviation_ND.sum(0, dtype=torch.float64)
        self.square += deviation_ND.square().sum(dtype=torch.float64)

    def variance_sum(self) -> Tensor:
        """sum_n |y_n - mean|^2, a float64 scalar; 0 without tokens."""
        return self.square - self.sum_D.square().sum() / self.count.clamp(min=1)
