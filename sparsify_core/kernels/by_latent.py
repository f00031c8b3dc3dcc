"""The active latents of a batch sorted by latent: what turns the scatter of their gradients into a gather.

Legend: N tokens, K active latents per token, P entries (n, k) in all, M latents, S segments.
A latent's entries are cut into segments of at most `SEGMENT`, one program each, so that a latent that fires on every
token keeps many programs busy. Every latent has at least one segment, an empty one if it did not fire: whoever handles
it writes that latent's zeros. Nothing here looks at the device from the host: S is a bound, known from shapes alone.
"""

from typing import NamedTuple

import torch
from torch import Tensor

SEGMENT = 128
_INT16_KEYS = 2**15 - 1


class ByLatent(NamedTuple):
    """The entries in ascending order of their latents, those of one latent in their old order.

    order_P: int64, where entry number p of the sorted ones lies in the flattened indices.
    starts_M: int32 (M + 1), where each latent's entries begin among the sorted ones; the last is P.
    first_segment_M: int32 (M + 1), number of each latent's first segment; the last is the number of segments in use.
    latent_S: int32 (M + P // SEGMENT), the latent of each segment; M for segments not in use.
    latent_T: int32 (P // SEGMENT), the same for segments that are not the first of their latent, counted alone: segment
        s of latent j is number s - j - 1 of these.
    """

    order_P: Tensor
    starts_M: Tensor
    first_segment_M: Tensor
    latent_S: Tensor
    latent_T: Tensor


def sort_by_latent(indices: Tensor, num_latents: int) -> ByLatent:
    """Sort entries by latent; stably, so that sums in this order are the same in every run.

    Args:
        indices: int32 or int64 of any shape, flattened to P entries, each in [0, num_latents).

    Raises:
        ValueError: more entries or latents than 32-bit positions can count.
    """
    num_entries = indices.numel()
    if num_entries + num_latents >= 2**31:
        raise ValueError(f"{num_entries} active latents of {num_latents} overflow 32-bit positions: use smaller chunks")
    # A radix sort takes time in proportion to the width of its keys.
    key_type = torch.int16 if num_latents <= _INT16_KEYS else torch.int32
    keys_P, order_P = indices.flatten().to(key_type).sort(stable=True)
    boundaries_M = torch.arange(num_latents + 1, dtype=key_type, device=indices.device)
    starts_M = torch.searchsorted(keys_P, boundaries_M, out_int32=True)

    num_segments_M = ((starts_M.diff() + (SEGMENT - 1)) // SEGMENT).clamp_(min=1)
    first_segment_M = torch.zeros_like(starts_M)
    torch.cumsum(num_segments_M, 0, dtype=torch.int32, out=first_segment_M[1:])
    # max(1, ceil(n / SEGMENT)) <= 1 + n // SEGMENT summed over latents never exceeds the bound below.
    num_further = num_entries // SEGMENT
    first_further_M = first_segment_M - torch.arange(num_latents + 1, dtype=torch.int32, device=indices.device)
    return ByLatent(
        order_P,
        starts_M,
        first_segment_M,
        latent_S=_last_at_or_before(first_segment_M, num_latents + num_further),
        latent_T=_last_at_or_before(first_further_M, num_further),
    )


def _last_at_or_before(firsts: Tensor, count: int) -> Tensor:
    """For each i in [0, count): the last position in ascending `firsts` whose value is at most i."""
    numbers = torch.arange(count, dtype=torch.int32, device=firsts.device)
    return torch.searchsorted(firsts, numbers, right=True, out_int32=True).sub_(1)
