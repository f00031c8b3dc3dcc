"""What the benchmark of an operation consists of, and the tensors that it is timed on.

Legend: N tokens, M latents, D width, K active latents per token, J groups of latents.
"""

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.workloads import mixture
from sparsify_core.kernels.maxima import group_maxima
from sparsify_core.kernels.topk import select_topk

Calls = Sequence[Callable[[], object]]
"""The same operation on different inputs."""


class Case(NamedTuple):
    """An operation and what it is compared with. Of `flops` and `moved_bytes` the one that bounds it is given; bytes
    are those that have to be moved, whatever the implementation moves."""

    name: str
    ours: Calls
    reference_name: str
    reference: Calls
    flops: float = 0
    moved_bytes: float = 0


class Shape(NamedTuple):
    name: str
    num_tokens: int
    width: int
    num_latents: int
    k: int


SHAPES = {
    s.name: s
    for s in (
        Shape("W1", 65_536, 576, 18_432, 32),
        Shape("W2", 32_768, 768, 24_576, 32),
        Shape("W3", 8192, 4096, 131_072, 64),
        Shape("W3-k192", 8192, 4096, 131_072, 192),
        Shape("tiny", 8, 24, 64, 4),
    )
}
"""The coders of the workloads; `tiny` tries a benchmark in Triton's interpreter."""

NUM_DEAD = 2560
"""Latents that count as dead, where there are that many."""

_NUM_INPUTS = 2


class Inputs:
    """Tensors of a shape, made when they are first asked for; two of each that is read, to be used by turns."""

    def __init__(self, shape: Shape, device: str) -> None:
        self.shape = shape
        self.device = device
        self._random = torch.Generator(device).manual_seed(0)

    def normal(self, *size: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.randn(*size, generator=self._random, device=self.device).to(dtype)

    @cached_property
    def x_ND(self) -> list[Tensor]:
        """bfloat16, skewed as activations are."""
        num_tokens, width = self.shape.num_tokens, self.shape.width
        return [mixture(num_tokens, width, self.device, seed=seed).bfloat16() for seed in range(_NUM_INPUTS)]

    @cached_property
    def grad_NE(self) -> list[Tensor]:
        return [self.normal(*self.x_ND[0].shape, dtype=torch.bfloat16) for _ in range(_NUM_INPUTS)]

    @cached_property
    def W_enc_MD(self) -> Tensor:
        """bfloat16 rows of about unit norm; those of W_dec are the same."""
        rows_MD = self.normal(self.shape.num_latents, self.shape.width)
        return functional.normalize(rows_MD).bfloat16()

    @cached_property
    def b_enc_M(self) -> Tensor:
        return torch.zeros(self.shape.num_latents, device=self.device)

    @cached_property
    def pre_NM(self) -> list[Tensor]:
        """bfloat16 pre-activations."""
        return [functional.linear(x_ND, self.W_enc_MD) for x_ND in self.x_ND]

    @cached_property
    def max_NJ(self) -> list[Tensor]:
        return [group_maxima(pre_NM) for pre_NM in self.pre_NM]

    @cached_property
    def top(self) -> list[tuple[Tensor, Tensor]]:
        """Activations (N, K) bfloat16 and latents (N, K) int32."""
        return [select_topk(*pair, self.shape.k) for pair in zip(self.pre_NM, self.max_NJ, strict=True)]
