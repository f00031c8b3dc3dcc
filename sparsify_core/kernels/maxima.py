"""Maxima of groups of neighbouring latents: one read of the pre-activations, after which a selection reads few of them.

Legend: N tokens, M latents, J = ceil(M / GROUP) groups per token.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from sparsify_core.kernels.bits import as_bits, num_bits, relu_bits
from sparsify_core.kernels.dispatch import GROUP

_GROUPS_PER_PROGRAM = 64


@triton.jit
def _group_maxima(pre_ptr, max_ptr, M, J, blocks, BITS: tl.constexpr, GROUP: tl.constexpr, TILE: tl.constexpr):
    program = tl.program_id(0)
    token = (program // blocks).to(tl.int64)  # N * M may pass 2**31
    groups = (program % blocks) * TILE + tl.arange(0, TILE)
    latents = groups[:, None] * GROUP + tl.arange(0, GROUP)[None, :]
    bits = relu_bits(tl.load(pre_ptr + token * M + latents, mask=latents < M, other=0).to(tl.int32), BITS)
    tl.store(max_ptr + token * J + groups, tl.max(bits, axis=1).to(max_ptr.dtype.element_ty), mask=groups < J)


def group_maxima(pre_NM: Tensor) -> Tensor:
    """max_NJ[n, j] = max(0, pre[n, GROUP * j], ..., pre[n, GROUP * j + GROUP - 1]); the last group may be shorter.

    Args:
        pre_NM: pre-activations, bf16 or fp32, contiguous.

    Returns:
        (N, J) in the dtype of `pre_NM`; NaN where the group holds one.

    Raises:
        ValueError: another dtype or layout.
    """
    tokens, latents = pre_NM.shape
    groups = triton.cdiv(latents, GROUP)
    max_NJ = torch.empty(tokens, groups, dtype=pre_NM.dtype, device=pre_NM.device)
    blocks = triton.cdiv(groups, _GROUPS_PER_PROGRAM)
    _group_maxima[(tokens * blocks,)](
        as_bits(pre_NM),
        as_bits(max_NJ),
        latents,
        groups,
        blocks,
        BITS=num_bits(pre_NM),
        GROUP=GROUP,
        TILE=_GROUPS_PER_PROGRAM,
        num_warps=4,
    )
    return max_NJ
