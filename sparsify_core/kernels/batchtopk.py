"""BatchTopK: the N * K largest latents of a whole batch, exactly.

As for a single token (`topk`): the N * K groups with the largest maxima hold them, so the pre-activations are read once
for the maxima, and of the rest only those groups.

Legend: N tokens, M latents, J = ceil(M / GROUP) groups per token, P = N * K active latents in all.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from sparsify_core.kernels.bits import as_bits, num_bits, relu_bits
from sparsify_core.kernels.dispatch import GROUP, MAX_CANDIDATES
from sparsify_core.kernels.radix import take_largest

_TILE = 64


class BatchSelection(NamedTuple):
    """`acts` (P), their `tokens` (P) and `latents` (P) int32, token by token with ascending latents; and the smallest
    of the acts, a scalar."""

    acts: Tensor
    tokens: Tensor
    latents: Tensor
    threshold: Tensor


@triton.jit
def _gather_groups(
    pre_ptr, groups_ptr, bits_ptr, size, M, J, BITS: tl.constexpr, GROUP: tl.constexpr, TILE: tl.constexpr
):
    rows = tl.program_id(0) * TILE + tl.arange(0, TILE)
    groups = tl.load(groups_ptr + rows, mask=rows < size, other=0)
    latents = (groups % J)[:, None] * GROUP + tl.arange(0, GROUP)[None, :]
    exists = (rows < size)[:, None] & (latents < M)
    cells = pre_ptr + (groups // J).to(tl.int64)[:, None] * M + latents
    bits = relu_bits(tl.load(cells, mask=exists, other=0).to(tl.int32), BITS)
    bits = tl.where(latents < M, bits, -1)  # a short last group ends here
    out = bits_ptr + rows.to(tl.int64)[:, None] * GROUP + tl.arange(0, GROUP)[None, :]
    tl.store(out, bits.to(bits_ptr.dtype.element_ty), mask=(rows < size)[:, None])


@triton.jit
def _locate(
    bits_ptr,
    groups_ptr,
    places_ptr,
    acts_ptr,
    tokens_ptr,
    latents_ptr,
    size,
    J,
    GROUP: tl.constexpr,
    TILE: tl.constexpr,
):
    entries = tl.program_id(0) * TILE + tl.arange(0, TILE)
    inside = entries < size
    places = tl.load(places_ptr + entries, mask=inside, other=0)
    groups = tl.load(groups_ptr + places // GROUP, mask=inside, other=0)
    tl.store(acts_ptr + entries, tl.load(bits_ptr + places, mask=inside, other=0), mask=inside)
    tl.store(tokens_ptr + entries, groups // J, mask=inside)
    tl.store(latents_ptr + entries, (groups % J) * GROUP + places % GROUP, mask=inside)


def select_batchtopk(pre_NM: Tensor, max_NJ: Tensor, k: int) -> BatchSelection:
    """The N * k largest of relu(pre), equal ones by lowest token, then latent (arXiv:2412.06410): the same every time.

    Where fewer are positive, the first latents with value 0 fill up. The host never waits for the device.

    Args:
        pre_NM: pre-activations, with or without ReLU, bf16 or fp32, contiguous.
        max_NJ: their `group_maxima`.
        k: latents per token on average, at most M.

    Returns:
        acts in the dtype of `pre_NM`, and where they are.

    Raises:
        ValueError: wrong shapes, dtype or layout, or a batch of 2**31 candidates.
    """
    tokens, latents = pre_NM.shape
    groups = triton.cdiv(latents, GROUP)
    if max_NJ.shape != (tokens, groups) or max_NJ.dtype != pre_NM.dtype:
        raise ValueError(f"need {pre_NM.dtype} maxima of shape {(tokens, groups)}, got {max_NJ.dtype} {max_NJ.shape}")
    number = tokens * k
    num_chosen = min(number, tokens * groups)
    if not 1 <= k <= latents or num_chosen * GROUP > MAX_CANDIDATES:
        most = MAX_CANDIDATES // GROUP
        raise ValueError(f"need 1 <= k <= {latents} and N * k <= {most}, got {k} for {tokens} tokens")
    bits, pre_bits = num_bits(pre_NM), as_bits(pre_NM)
    chosen, _ = take_largest(as_bits(max_NJ), num_chosen, bits)
    candidates = torch.empty(num_chosen, GROUP, dtype=pre_bits.dtype, device=pre_NM.device)
    _gather_groups[(triton.cdiv(num_chosen, _TILE),)](
        pre_bits, chosen, candidates, num_chosen, latents, groups, BITS=bits, GROUP=GROUP, TILE=_TILE
    )
    places, threshold = take_largest(candidates, number, bits)
    acts = torch.empty(number, dtype=pre_NM.dtype, device=pre_NM.device)
    token_of, latent_of = (torch.empty(number, dtype=torch.int32, device=pre_NM.device) for _ in range(2))
    _locate[(triton.cdiv(number, 1024),)](
        candidates, chosen, places, as_bits(acts), token_of, latent_of, number, groups, GROUP=GROUP, TILE=1024
    )
    return BatchSelection(acts, token_of, latent_of, threshold.to(pre_bits.dtype).view(pre_NM.dtype))
