"""Muon's average of a gradient and Nesterov's look ahead in one pass, against PyTorch's passes for the same."""

from collections.abc import Iterator

import torch
from torch import Tensor

from benchmarks.kernels.case import Case, Inputs
from sparsify_core.kernels.muon_average import muon_average

_MOMENTUM = 0.95


def cases(inputs: Inputs) -> Iterator[Case]:
    rows = inputs.W_enc_MD.float()
    average, other = torch.zeros_like(rows), torch.zeros_like(rows)
    grad = inputs.normal(*rows.shape)
    scale = torch.ones((), device=inputs.device)

    def passes() -> Tensor:
        scaled = grad * scale
        other.lerp_(scaled, 1 - _MOMENTUM)
        return scaled.lerp_(other, _MOMENTUM).bfloat16()

    yield Case(
        "average, look ahead",
        [lambda: muon_average(average, grad, scale=scale, momentum=_MOMENTUM)],
        "lerp_, twice",
        [passes],
        moved_bytes=(3 * 4 + 2) * rows.numel(),
    )
