"""GroupMax: the largest latent of each of k groups of neighbours, in one read of the pre-activations.

Legend: N tokens, M latents, K groups of S = M / K latents.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from sparsify_core.kernels.bits import as_bits, num_bits, relu_bits


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


def select_groupmax(pre_NM: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The largest of relu(pre) in each of k groups of M / k neighbours, the lowest latent where several are equal.

    Args:
        pre_NM: pre-activations, with or without ReLU, bf16 or fp32, contiguous.
        k: a divisor of M.

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
