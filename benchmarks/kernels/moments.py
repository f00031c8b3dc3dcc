"""Centred rows with their sums and squares in one pass, against PyTorch."""

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from benchmarks.kernels.case import Case, Inputs
from sparsify_core.kernels.moments import centred_moments


def cases(inputs: Inputs) -> Iterator[Case]:
    shift_D = inputs.x_ND[0].float().mean(0)
    yield Case(
        "centre, sums",
        [partial(centred_moments, x_ND, shift_D) for x_ND in inputs.x_ND],
        "in PyTorch",
        [partial(_centred_moments, x_ND, shift_D) for x_ND in inputs.x_ND],
        moved_bytes=2 * 2 * inputs.x_ND[0].numel(),
    )


def _centred_moments(x_ND: Tensor, shift_D: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    centred_ND = x_ND.float() - shift_D
    sums_D = centred_ND.sum(0, dtype=torch.float64)
    return centred_ND.bfloat16(), sums_D, centred_ND.square().sum(dtype=torch.float64)
