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
from sparsify_core.kernels.bits import as_bits, kth_largest, num_bits, place_largest, relu_bits
from sparsify_core.kernels.dispatch import GROUP, MAX_GROUPS, MAX_K

_SHORT = 2
"""Times K: room of the list to which the latents that can still be among the K largest are moved."""
_MOST_PIECES = 8
"""Into which the maxima of a token are cut: 576 of them take the room of 640 so, not of 1,024."""


@triton.jit
def _load_values(
    pre_ptr, chosen_ptr, start, num_chosen, M, BITS: tl.constexpr, GROUP: tl.constexpr, TILE: tl.constexpr
):
    ranks = start + tl.arange(0, TILE)
    chosen = tl.load(chosen_ptr + ranks, mask=ranks < num_chosen, other=0)
    latents = chosen[:, None] * GROUP + tl.arange(0, GROUP)[None, :]
    exists = (ranks < num_chosen)[:, None] & (latents < M)
    values = relu_bits(tl.load(pre_ptr + latents, mask=exists, other=0).to(tl.int32), BITS)
    return tl.where(exists, values, -1), latents


@triton.jit
def _row_major_places(flags):
    """Of each flag how many are set up to it, row after row; and the number of all."""
    ints = flags.to(tl.int32)
    rows = tl.sum(ints, axis=1)
    return (tl.cumsum(rows, axis=0) - rows)[:, None] + tl.cumsum(ints, axis=1), tl.sum(rows, axis=0)


@triton.jit
def _list_candidates(
    pre_ptr, chosen_ptr, short_ptr, num_chosen, M, least, spare, BITS: tl.constexpr, GROUP: tl.constexpr,
    TILE: tl.constexpr, SHORT: tl.constexpr, EXACT: tl.constexpr,
):  # fmt: skip
    """Write the values that reach `least`, and their latents, to the list, as far as it has room. Returns their number.

    EXACT: of those equal to `least` only the first `spare`.
    """
    count = 0
    num_tied = 0
    for start in range(0, num_chosen, TILE):
        values, latents = _load_values(pre_ptr, chosen_ptr, start, num_chosen, M, BITS, GROUP, TILE)
        is_listed = values >= least
        if EXACT:
            tied = values == least
            tie_places, number = _row_major_places(tied)
            is_listed = (values > least) | (tied & (num_tied + tie_places <= spare))
            num_tied += number
        places, number = _row_major_places(is_listed)
        places += count - 1
        entries = (values.to(tl.int64) << 32) | latents
        tl.store(short_ptr + places, entries, mask=is_listed & (places < SHORT))
        count += number
    return count


@triton.jit
def _count_above(
    pre_ptr, chosen_ptr, num_chosen, M, bound, BITS: tl.constexpr, GROUP: tl.constexpr, TILE: tl.constexpr
):
    above = tl.zeros((TILE, GROUP), tl.int32)
    for start in range(0, num_chosen, TILE):
        values, _ = _load_values(pre_ptr, chosen_ptr, start, num_chosen, M, BITS, GROUP, TILE)
        above += (values > bound).to(tl.int32)
    return tl.sum(tl.sum(above, axis=1), axis=0)


@triton.jit
def _select_topk(
    pre_ptr, max_ptr, acts_ptr, indices_ptr, chosen_ptr, short_ptr, M, J, FIRST, K, BITS: tl.constexpr,
    GROUP: tl.constexpr, PIECE: tl.constexpr, PIECES: tl.constexpr, TILE: tl.constexpr, ROOM: tl.constexpr,
    SHORT: tl.constexpr, NESTED: tl.constexpr,
):  # fmt: skip
    token = tl.program_id(0).to(tl.int64)
    pre_ptr += token * M
    chosen_ptr += token * ROOM
    short_ptr += token * SHORT
    pieces = ()
    for i in tl.static_range(PIECES):
        groups = i * PIECE + tl.arange(0, PIECE)
        pieces += (tl.load(max_ptr + token * J + groups, mask=groups < J, other=-1).to(tl.int32),)
    # Registers cannot be compacted, so the chosen groups, and then their largest latents, pass through memory.
    num_chosen = tl.minimum(J, K)
    lowest = kth_largest(pieces, num_chosen, BITS)
    taken, ranks = place_largest(pieces, lowest, num_chosen)
    for i in tl.static_range(PIECES):
        tl.store(chosen_ptr + ranks[i], i * PIECE + tl.arange(0, PIECE), mask=taken[i])
    tl.debug_barrier()
    # Each chosen group has one latent that reaches the lowest of their maxima, few have two: mostly the list is short.
    least = tl.maximum(lowest, 1)
    count = _list_candidates(pre_ptr, chosen_ptr, short_ptr, num_chosen, M, least, 0, BITS, GROUP, TILE, SHORT, False)
    if (count < K) | (count > SHORT):
        # Too few are positive, and zeros fill up; or many are equal, or there are fewer groups than K.
        least = 0
        spare = K - count
        if (lowest > 0) | (count > SHORT):
            for bit in range(BITS):
                trial = least | (1 << (BITS - 1 - bit))
                above = _count_above(pre_ptr, chosen_ptr, num_chosen, M, trial - 1, BITS, GROUP, TILE)
                least = tl.where(above >= K, trial, least)
            spare = K - _count_above(pre_ptr, chosen_ptr, num_chosen, M, least, BITS, GROUP, TILE)
        tl.debug_barrier()  # the list is written anew, by other threads
        count = _list_candidates(
            pre_ptr, chosen_ptr, short_ptr, num_chosen, M, least, spare, BITS, GROUP, TILE, SHORT, True
        )
    tl.debug_barrier()
    places = tl.arange(0, SHORT)
    listed = tl.load(short_ptr + places, mask=places < count, other=-1)
    values = (listed >> 32).to(tl.int32)  # -1 stays below all numbers, as it is -1 in its upper half too
    taken, ranks = place_largest((values,), kth_largest((values,), K, BITS), K)
    rank = ranks[0]
    if NESTED:
        is_first, before = place_largest((values,), kth_largest((values,), FIRST, BITS), FIRST)
        rank = tl.where(is_first[0], before[0], FIRST + rank - before[0] - 1)
    tl.store(acts_ptr + token * K + rank, values.to(acts_ptr.dtype.element_ty), mask=taken[0])
    tl.store(indices_ptr + token * K + rank, listed.to(tl.int32), mask=taken[0])


def select_topk(pre_NM: Tensor, max_NJ: Tensor, k: int, *, first: int | None = None) -> tuple[Tensor, Tensor]:
    """The k largest of each row of relu(pre), equal ones by lowest latent: the same result every time.

    Where fewer than k are positive, the lowest latents with value 0 fill up.

    Args:
        pre_NM: pre-activations, with or without ReLU, bf16 or fp32, contiguous.
        max_NJ: their `group_maxima`.
        k: at most M and MAX_K.
        first: at most k. So many of the largest come first, as a selection of their own, then the others.

    Returns:
        acts (N, K) in the dtype of `pre_NM`, and latents (N, K) int32, ascending (the `first` ones and the others).

    Raises:
        ValueError: wrong shapes, dtype or layout, or more latents than one program holds.
    """
    tokens, latents = pre_NM.shape
    groups = triton.cdiv(latents, GROUP)
    if max_NJ.shape != (tokens, groups) or max_NJ.dtype != pre_NM.dtype:
        raise ValueError(f"need {pre_NM.dtype} maxima of shape {(tokens, groups)}, got {max_NJ.dtype} {max_NJ.shape}")
    if not 1 <= k <= min(latents, MAX_K) or groups > MAX_GROUPS:
        raise ValueError(f"need 1 <= k <= {min(latents, MAX_K)} and M <= {MAX_GROUPS * GROUP}, got {k} and {latents}")
    if first is not None and not 1 <= first <= k:
        raise ValueError(f"need 1 <= first <= k, got {first} and {k}")
    acts = torch.empty(tokens, k, dtype=pre_NM.dtype, device=pre_NM.device)
    indices = torch.empty(tokens, k, dtype=torch.int32, device=pre_NM.device)
    room, (piece, pieces) = triton.next_power_of_2(k), _pieces(groups)
    chosen = torch.empty(tokens, room, dtype=torch.int32, device=pre_NM.device)
    short = torch.empty(tokens, _SHORT * room, dtype=torch.int64, device=pre_NM.device)

    def run(launch: tuning.Launch) -> None:
        _select_topk[(tokens,)](
            as_bits(pre_NM),
            as_bits(max_NJ),
            as_bits(acts),
            indices,
            chosen,
            short,
            latents,
            groups,
            k if first is None else first,
            k,
            BITS=num_bits(pre_NM),
            GROUP=GROUP,
            PIECE=piece,
            PIECES=pieces,
            ROOM=room,
            SHORT=short.shape[1],
            NESTED=first is not None,
            **launch,
        )

    run(tuning.choose(launches(tokens, latents, k, pre_NM.dtype), pre_NM.device, run))
    return acts, indices


def launches(tokens: int, latents: int, k: int, dtype: torch.dtype) -> tuning.Space:
    """What `select_topk` chooses from for pre-activations (tokens, latents). It counts; no number is ever added."""
    piece, pieces = _pieces(triton.cdiv(latents, GROUP))
    room = triton.next_power_of_2(k)
    warps = min(32, max(1, triton.next_power_of_2(max(piece * pieces, _SHORT * room)) // 1024))
    # TILE: chosen groups that are read at a time. One warp has no barriers, and few registers leave room for more.
    tiles = [(8, 1), (4, 1), (16, 1)] if warps == 1 else [(32, warps), (32, max(1, warps // 4))]
    key = f"topk N {tuning.round_up(tokens)} J {piece * pieces} K {room} {dtype}"
    return tuning.Space(key, [{"TILE": tile, "num_warps": number} for tile, number in tiles])


def _pieces(groups: int) -> tuple[int, int]:
    """Length, a power of two, and number of the pieces that hold the maxima of a token."""
    piece = max(32, triton.next_power_of_2(triton.cdiv(groups, _MOST_PIECES)))
    return piece, triton.cdiv(groups, piece)
