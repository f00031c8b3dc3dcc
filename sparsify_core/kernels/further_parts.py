"""Sums over the segments that are not the first of their latent: the part of hot latents that many programs share.

Legend as in by_latent.py; D width of the encoder's input, E of the reconstruction.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from sparsify_core.kernels.by_latent import ByLatent
from sparsify_core.kernels.entry_sums import sum_entries, sum_parts
from sparsify_core.kernels.rows import store_row
from sparsify_core.kernels.sparse_grads import COMBINED_ROWS, MAX_COMBINED_COLUMNS


@triton.jit
def _further_kernel(
    order_P, starts_M, first_segment_M, latent_T, tokens_P, acts_P, grad_NE, x_ND, W_dec_ME,
    part_dec_TE, part_enc_TD, part_bias_T, part_counts_T, num_latents, active,
    E: tl.constexpr, E1: tl.constexpr, E2: tl.constexpr, D: tl.constexpr, D1: tl.constexpr, D2: tl.constexpr,
    LENGTH: tl.constexpr, UNROLL: tl.constexpr, HAS_TOKENS: tl.constexpr, STRAIGHT_THROUGH: tl.constexpr,
):  # fmt: skip
    """Sums over the segments that are not the first of their latent."""
    slot = tl.program_id(0)
    latent = tl.load(latent_T + slot)
    if latent < num_latents:
        segment = slot + latent + 1
        begin = tl.load(starts_M + latent) + (segment - tl.load(first_segment_M + latent)) * LENGTH
        end = tl.minimum(begin + LENGTH, tl.load(starts_M + latent + 1))
        dec1, dec2, enc1, enc2, bias, count = sum_entries(
            begin, end, latent.to(tl.int64), order_P, tokens_P, acts_P, grad_NE, x_ND, W_dec_ME, acts_P, active,
            E, E1, E2, D, D1, D2, UNROLL, HAS_TOKENS, STRAIGHT_THROUGH, False,
        )  # fmt: skip
        part = slot.to(tl.int64)
        store_row(part_dec_TE, part, dec1, dec2, E, E1, E2)
        store_row(part_enc_TD, part, enc1, enc2, D, D1, D2)
        tl.store(part_bias_T + part, bias)
        tl.store(part_counts_T + part, count)


@triton.jit
def _put_sum(slot, end, part_TW, columns, WIDTH: tl.constexpr, ROWS: tl.constexpr):
    total = sum_parts(slot, end, part_TW, columns, WIDTH, ROWS)
    tl.store(part_TW + slot.to(tl.int64) * WIDTH + columns, total, mask=columns < WIDTH)


@triton.jit
def _gather_kernel(
    latent_T, first_segment_M, part_dec_TE, part_enc_TD, part_bias_T, part_counts_T, num_latents,
    E: tl.constexpr, D: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """The sum of every `ROWS` parts of a latent in the place of the first of them, so that its owner reads fewer."""
    slot = tl.program_id(0)
    latent = tl.load(latent_T + slot)
    if latent < num_latents and (slot - (tl.load(first_segment_M + latent) - latent)) % ROWS == 0:
        end = tl.load(first_segment_M + latent + 1) - latent - 1
        block = tl.program_id(1)
        columns = block * COLUMNS + tl.arange(0, COLUMNS)
        _put_sum(slot, end, part_dec_TE, columns, E, ROWS)
        _put_sum(slot, end, part_enc_TD, columns, D, ROWS)
        if block == 0:
            only = tl.arange(0, 1)
            _put_sum(slot, end, part_bias_T, only, 1, ROWS)
            _put_sum(slot, end, part_counts_T, only, 1, ROWS)


def further_parts(
    by_latent: ByLatent, entries: tuple[Tensor, ...], active: int, shape: dict[str, int]
) -> tuple[Tensor, ...]:
    """Decoder (T, E), encoder (T, D), bias (T), all float32, and counts (T) int32 of the further segments; of every
    COMBINED_ROWS of a latent the first has the sum of all.

    Args:
        entries: tokens, activations, gradient (N, E), input (N, D) and decoder rows (M, E), as sum_entries reads them.
        active: entries per token; 1 where tokens are listed.
        shape: constants of `_further_kernel`, and its number of warps.
    """
    E, D, num_parts, num_latents = shape["E"], shape["D"], len(by_latent.latent_T), len(entries[-1])
    like = {"dtype": torch.float32, "device": by_latent.latent_T.device}
    parts = (
        torch.empty(num_parts, E, **like),
        torch.empty(num_parts, D, **like),
        torch.empty(num_parts, **like),
        torch.empty_like(by_latent.latent_T),
    )
    if num_parts:
        _further_kernel[(num_parts,)](
            by_latent.order_P, by_latent.starts_M, by_latent.first_segment_M, by_latent.latent_T, *entries, *parts,
            num_latents, active, **shape,
        )  # fmt: skip
        columns = min(MAX_COMBINED_COLUMNS, triton.next_power_of_2(max(D, E)))
        _gather_kernel[(num_parts, triton.cdiv(max(D, E), columns))](
            by_latent.latent_T, by_latent.first_segment_M, *parts, num_latents,
            E, D, ROWS=COMBINED_ROWS, COLUMNS=columns, num_warps=4,
        )  # fmt: skip
    return parts
