"""GroupMax: the largest latent of each of k groups of neighbours.

Legend: N tokens, M latents, K groups of S = M / K latents. Where S is a multiple of GROUP, the `group_maxima` of the
pre-activations tell which GROUP of them to read; otherwise all are read.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from sparsify_core.kernels.bits import as_bits, num_bits, relu_bits
from sparsify_core.kernels.dispatch import GROUP

_TILE = 2048
"""Maxima, or pre-activations, that a program holds."""


@triton.jit
def _select_groupmax(pre_ptr, acts_ptr, indices_ptr, M, K, S, BITS: tl.constexpr, TILE: tl.constexpr):
    token = tl.program_id(0).to(tl.int64)
    lanes = tl.arange(0, TILE)
    for group in range(K):
        first = group * S
        best = tl.full((TILE,), -1, tl.int32)
        place = lanes
        for start in range(0, S, TILE):
            places = start + lanes
            bits = tl.load(pre_ptr + token * M + first + places, mask=places < S, other=0).to(tl.int32)
            bits = tl.where(places < S, relu_bits(bits, BITS), -1)
            place = tl.where(bits > best, places, place)
            best = tl.maximum(bits, best)
        largest = tl.max(best, axis=0)
        tl.store(acts_ptr + token * K + group, largest.to(acts_ptr.dtype.element_ty))
        tl.store(indices_ptr + token * K + group, first + tl.min(tl.where(best == largest, place, S), axis=0))


@triton.jit
def _select_from_maxima(
    pre_ptr, max_ptr, acts_ptr, indices_ptr, M, K, PARTS, BITS: tl.constexpr, GROUP: tl.constexpr,
    K_TILE: tl.constexpr, PARTS_PADDED: tl.constexpr,
):  # fmt: skip
    token = tl.program_id(0).to(tl.int64)
    groups = tl.program_id(1) * K_TILE + tl.arange(0, K_TILE)
    parts = tl.arange(0, PARTS_PADDED)
    exists = (groups < K)[:, None] & (parts < PARTS)[None, :]
    cells = token * K * PARTS + groups[:, None] * PARTS + parts[None, :]
    maxima = tl.load(max_ptr + cells, mask=exists, other=0).to(tl.int32)
    maxima = tl.where(exists, maxima, -1)
    largest = tl.max(maxima, axis=1)
    part = tl.min(tl.where(maxima == largest[:, None], parts[None, :], PARTS_PADDED), axis=1)
    lanes = tl.arange(0, GROUP)
    latents = (groups * PARTS + part)[:, None] * GROUP + lanes[None, :]
    bits = tl.load(pre_ptr + token * M + latents, mask=(groups < K)[:, None], other=0).to(tl.int32)
    bits = relu_bits(bits, BITS)
    # NaN have many bits, of which the maximum need not be one of the group's.
    lane = tl.minimum(tl.min(tl.where(bits == largest[:, None], lanes[None, :], GROUP), axis=1), GROUP - 1)
    to = token * K + groups
    tl.store(acts_ptr + to, largest.to(acts_ptr.dtype.element_ty), mask=groups < K)
    tl.store(indices_ptr + to, (groups * PARTS + part) * GROUP + lane, mask=groups < K)


def select_groupmax(pre_NM: Tensor, k: int, max_NJ: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The largest of relu(pre) in each of k groups of M / k neighbours, the lowest latent where several are equal.

    Args:
        pre_NM: pre-activations, with or without ReLU, bf16 or fp32, contiguous.
        k: a divisor of M.
        max_NJ: their `group_maxima`, which saves most of the reading where M / k is a multiple of GROUP.

    Returns:
        acts (N, K) in the dtype of `pre_NM`, and latents (N, K) int32, ascending.

    Raises:
        ValueError: another dtype or layout, or a k that does not divide M.
    """
    tokens, latents = pre_NM.shape
    if k < 1 or latents % k:
        raise ValueError(f"groupmax needs a k that divides {latents} latents, got {k}")
    acts = torch.empty(tokens, k, dtype=pre_NM.dtype, device=pre_NM.device)
    indices = torch.empty(tokens, k, dtype=torch.int32, device=pre_NM.device)
    if max_NJ is not None and latents // k % GROUP == 0:
        parts = latents // k // GROUP
        parts_padded = triton.next_power_of_2(parts)
        k_tile = min(triton.next_power_of_2(k), max(1, _TILE // max(parts_padded, GROUP)))
        _select_from_maxima[(tokens, triton.cdiv(k, k_tile))](
            as_bits(pre_NM), as_bits(max_NJ), as_bits(acts), indices, latents, k, parts,
            BITS=num_bits(pre_NM), GROUP=GROUP, K_TILE=k_tile, PARTS_PADDED=parts_padded,
            num_warps=max(1, k_tile * max(parts_padded, GROUP) // 1024),
        )  # fmt: skip
        return acts, indices
    tile = min(1024, triton.next_power_of_2(latents // k))
    _select_groupmax[(tokens,)](
        as_bits(pre_NM),
        as_bits(acts),
        indices,
        latents,
        k,
        latents // k,
        BITS=num_bits(pre_NM),
        TILE=tile,
        num_warps=max(1, tile // 512),
    )
    return acts, indices
