"""Training loss of a sparse coder as sums over tokens.

Sums, not ratios: the variance that the FVU is divided by is that of the whole optimizer step, known only when all
micro-batches of all processes have been seen. Dividing the summed gradient once at the end makes any cut into
micro-batches, accumulation steps or processes equal to one big batch (upstream averages ratios, which is not equal).
Under batchtopk only micro-batches are: its selection is shared within the batch of one process.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from sparsify_core.model.coder import Latents, Selection, SparseCoder
from sparsify_core.model.encoding import (
    Encoding,
    add_fired,
    dead_error,
    encode,
    nested_errors,
    select,
    select_largest,
    squared_error,
    target_sums,
)

_MULTI_TOPK_WEIGHT = 1 / 8


class LossSums(NamedTuple):
    """Of one micro-batch. `loss` carries the graph, everything else is detached.

    `error` is the summed squared error, `auxk` and `multi_topk` are the sums of the auxiliary losses before their
    weights (0 where they are off); `latents` are the active ones; `target_sums` see `Moments.add`.
    """

    loss: Tensor
    error: Tensor
    auxk: Tensor
    multi_topk: Tensor
    latents: Latents
    target_sums: Sequence[Tensor] | None


class Entries(NamedTuple):
    """What the gradient of a batch's squared error is made of, on the fast path: the encoder's input (N, D) and the
    residual (N, E), both bfloat16, and the active latents. `fired_M`, int32, is where the step adds on how many tokens
    each latent is positive."""

    x_ND: Tensor
    residual_NE: Tensor
    latents: Latents
    fired_M: Tensor


def loss_sums(
    coder: SparseCoder,
    x_ND: Tensor,
    y_NE: Tensor,
    *,
    auxk_alpha: float = 0.0,
    dead_C: Tensor | None = None,
    multi_topk: bool = False,
    fired_M: Tensor | None = None,
    selection: Callable[[Tensor], Selection] | None = None,
) -> LossSums:
    """Sums of reconstructing `y_NE` from `x_ND`, both float32, or on the fast path of CUDA bfloat16 too.

    Args:
        auxk_alpha: weight of the AuxK loss.
        dead_C: indices of the dead latents, which the AuxK loss is about; None switches it off.
        multi_topk: add the error of a second selection of 4k latents, with weight 1/8.
        fired_M: see model.encoding.squared_error; of the first selection.
        selection: pre-activations (N, M) -> the active latents; None: as the coder selects while training.
    """
    encoding = encode(coder, x_ND)
    nested = None
    if multi_topk:
        nested = nested_errors(coder, encoding, y_NE, _wider_k(coder), _MULTI_TOPK_WEIGHT)
    if nested is not None:
        loss, error, multi, residual_NE, latents = nested
        if fired_M is not None:  # the kernels count the wider selection
            add_fired(fired_M, latents.indices, latents.acts > 0)
    else:
        selected = select(coder, encoding) if selection is None else selection(encoding.pre_NM)
        error, residual_NE, latents = squared_error(coder, encoding, selected, y_NE, fired_M=fired_M)
        loss, multi = error, torch.zeros_like(error)
        if multi_topk:
            multi = multi_topk_sum(coder, encoding, y_NE)
            loss = loss + _MULTI_TOPK_WEIGHT * multi
    auxk = torch.zeros_like(error)
    if dead_C is not None and len(dead_C):
        auxk = auxk_sum(coder, encoding, residual_NE, dead_C)
        loss = loss + auxk_alpha * auxk
    latents = latents._replace(acts=latents.acts.detach())
    return LossSums(loss, error.detach(), auxk.detach(), multi.detach(), latents, target_sums(coder, encoding, y_NE))


def auxk_sum(coder: SparseCoder, encoding: Encoding, residual_NE: Tensor, dead_C: Tensor) -> Tensor:
    """AuxK (Gao et al. 2024, appendix A.2): let the strongest dead latents reconstruct what the others left over.

    Unlike upstream's, its gradient reaches the encoder: a decoder row alone cannot bring a latent back to life.
    (With the coder's `straight_through`, upstream's numerics, it does not.)
    """
    k_aux = coder.d_in // 2
    # The weight grows with the number of dead latents, so that few of them are not pushed with full force.
    scale = min(len(dead_C) / k_aux, 1.0)
    return scale * dead_error(coder, encoding, residual_NE, dead_C, min(k_aux, len(dead_C)))


def multi_topk_sum(coder: SparseCoder, encoding: Encoding, y_NE: Tensor) -> Tensor:
    """Squared error of the reconstruction from the 4k strongest latents, also under groupmax; with gradient to the
    encoder and with the skip connection, both of which upstream leaves out.
    """
    selection = select_largest(encoding, _wider_k(coder))
    return squared_error(coder, encoding, selection, y_NE, trains_encoder=not coder.straight_through)[0]


def _wider_k(coder: SparseCoder) -> int:
    return min(4 * coder.k, coder.num_latents)


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

    def add(self, y_ND: Tensor, sums: Sequence[Tensor] | None = None) -> None:
        """Args: sums: those of (y - shift), float64 (D), and of its squares, a scalar, where they are known already."""
        if sums is None:
            deviation_ND = y_ND - self._shift_D
            sums = deviation_ND.sum(0, dtype=torch.float64), deviation_ND.square().sum(dtype=torch.float64)
        self.count += len(y_ND)
        self.sum_D += sums[0]
        self.square += sums[1]

    def variance_sum(self) -> Tensor:
        """sum_n |y_n - mean|^2, a float64 scalar; 0 without tokens."""
        return self.square - self.sum_D.square().sum() / self.count.clamp(min=1)
