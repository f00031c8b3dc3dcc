"""The k largest latents of each token, exactly, reading k groups of the pre-activations instead of all.

The k groups with the largest maxima (ties: lowest index) hold the k largest latents (ties: lowest index): k groups
whose maximum exceeds a latent are k latents above it, and of equal latents each chosen group contributes one.

Legend: N tokens, M latents, K active latents per token, J = ceil(M / GROUP) groups per token.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from sparsify_core.kernels import tuning
from sparsify_core.kernels.bits import as_bits, num_bits, rank_of, relu_bits, take_largest
from sparsify_core.kernels.dispatch import GROUP, MAX_GROUPS, MAX_K

_SHORT = 2
"""Times K: room of the list to which the latents that can still be among the K largest are moved."""


@triton.jit
def _put(acts_ptr, indices_ptr, values, latents, K, BITS: tl.constexpr):
    taken = take_largest(values, K, BITS)
    rank = rank_of(taken)
    tl.debug_barrier()  # no thread may overwrite a chosen group that another has yet to read
    tl.store(acts_ptr + rank, values.to(acts_ptr.dtype.element_ty), mask=taken)
    tl.store(indices_ptr + rank, latents, mask=taken)


@triton.jit
def _select_topk(
    pre_ptr,
    max_ptr,
    acts_ptr,
    indices_ptr,
    short_ptr,
    M,
    J,
    K,
    BITS: tl.constexpr,
    GROUP: tl.constexpr,
    J_PADDED: tl.constexpr,
    K_PADDED: tl.constexpr,
    SHORT: tl.constexpr,
):
    token = tl.program_id(0).to(tl.int64)
    acts_ptr += token * K
    indices_ptr += token * K
    short_ptr += token * SHORT
    groups = tl.arange(0, J_PADDED)
    maxima = tl.load(max_ptr + token * J + groups, mask=groups < J, other=-1).to(tl.int32)
    num_chosen = tl.minimum(J, K)
    taken = take_largest(maxima, num_chosen, BITS)
    # Registers cannot be compacted, so the chosen groups pass through the row of the output.
    tl.store(indices_ptr + rank_of(taken), groups, mask=taken)
    lowest = tl.min(tl.where(taken, maxima, 0x7FFFFFFF), axis=0)
    tl.debug_barrier()
    ranks = tl.arange(0, K_PADDED)
    chosen = tl.load(indices_ptr + ranks, mask=ranks < num_chosen, other=0)
    latents = chosen[:, None] * GROUP + tl.arange(0, GROUP)[None, :]
    exists = (ranks < num_chosen)[:, None] & (latents < M)
    values = relu_bits(tl.load(pre_ptr + token * M + latents, mask=exists, other=0).to(tl.int32), BITS)
    values = tl.reshape(tl.where(exists, values, -1), (K_PADDED * GROUP,))
    latents = tl.reshape(latents, (K_PADDED * GROUP,))
    # Each chosen group has one latent that reaches the lowest of their maxima, few have two: mostly the list is short.
    reaches = values >= lowest
    count = tl.sum(reaches.to(tl.int32), axis=0)
    if (count >= K) & (count <= SHORT):
        tl.store(short_ptr + rank_of(reaches), (values.to(tl.int64) << 32) | latents, mask=reaches)
        tl.debug_barrier()
        places = tl.arange(0, SHORT)
        listed = tl.load(short_ptr + places, mask=places < count, other=-1)
        # -1 stays below all numbers, as it is -1 in its upper half too.
        _put(acts_ptr, indices_ptr, (listed >> 32).to(tl.int32), listed.to(tl.int32), K, BITS)
    else:
        _put(acts_ptr, indices_ptr, values, latents, K, BITS)


def select_topk(pre_NM: Tensor, max_NJ: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest of each row of relu(pre), equal ones by lowest latent: the same result every time.

    Where fewer than k are positive, the lowest latents with value 0 fill up.

    Args:
        pre_NM: pre-activations, with or without ReLU, bf16 or fp32, contiguous.
        max_NJ: their `group_maxima`.
        k: at most M and MAX_K.

    Returns:
        acts (N, K) in the dtype of `pre_NM`, and latents (N, K) int32, ascending.

    Raises:
        ValueError: wrong shapes, dtype or layout, or more latents than one program holds.
    """
    tokens, latents = pre_NM.shape
    groups = triton.cdiv(latents, GROUP)
    if max_NJ.shape != (tokens, groups) or max_NJ.dtype != pre_NM.dtype:
        raise ValueError(f"need {pre_NM.dtype} maxima of shape {(tokens, groups)}, got {max_NJ.dtype} {max_NJ.shape}")
    if not 1 <= k <= min(latents, MAX_K) or groups > MAX_GROUPS:
        raise ValueError(f"need 1 <= k <= {min(latents, MAX_K)} and M <= {MAX_GROUPS * GROUP}, got {k} and {latents}")
    acts = torch.empty(tokens, k, dtype=pre_NM.dtype, device=pre_NM.device)
    indices = torch.empty(tokens, k, dtype=torch.int32, device=pre_NM.device)
    k_padded, groups_padded = triton.next_power_of_2(k), triton.next_power_of_2(groups)
    short = torch.empty(tokens, _SHORT * k_padded, dtype=torch.int64, device=pre_NM.device)

    def run(launch: tuning.Launch) -> None:
        _select_topk[(tokens,)](
            as_bits(pre_NM),
            as_bits(max_NJ),
            as_bits(acts),
            indices,
            short,
            latents,
            groups,
            k,
            BITS=num_bits(pre_NM),
            GROUP=GROUP,
            J_PADDED=groups_padded,
            K_PADDED=k_padded,
            SHORT=short.shape[1],
            **launch,
        )

    run(tuning.choose(launches(tokens, latents, k, pre_NM.dtype), pre_NM.device, run))
    return acts, indices


def launches(tokens: int, latents: int, k: int, dtype: torch.dtype) -> tuning.Space:
    """What `select_topk` chooses from for pre-activations (tokens, latents). It counts; no number is ever added."""
    groups, candidates = (triton.next_power_of_2(size) for size in (triton.cdiv(latents, GROUP), k * GROUP))
    # 168 to 231 registers per thread on sm_90. Only beyond 8,192 entries a few spill.
    default = min(32, max(1, max(groups, candidates) // 1024))
    warps = dict.fromkeys([default, default * 2, max(default // 2, 1)])
    key = f"topk N {tuning.round_up(tokens)} J {groups} K {candidates // GROUP} {dtype}"
    return tuning.Space(key, [{"num_warps": number} for number in warps if number <= 32])
