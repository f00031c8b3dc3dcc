"""Sums over the segments that are not the first of their latent: the part of hot latents that many programs share.

Legend as in by_latent.py; D width of the encoder's input, E of the reconstruction.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from sparsify_core.kernels.by_latent import SEGMENT, ByLatent
from sparsify_core.kernels.entry_launches import decoder_launch, encoder_launch
from sparsify_core.kernels.entry_sums import entries_of, sum_decoder, sum_encoder, sum_parts
from sparsify_core.kernels.rows import store_row
from sparsify_core.kernels.sparse_grads import COMBINED_ROWS, MAX_COMBINED_COLUMNS


class EntryTensors(NamedTuple):
    """What the sums over entries are made of.

    tokens: the token of each entry if `has_tokens`; else `active` entries of one token follow those of the other.
    slopes: float32, of the shape of `acts`, to be filled in.
    """

    tokens: Tensor
    acts: Tensor
    grad_NE: Tensor
    x_ND: Tensor
    rows_ME: Tensor
    slopes: Tensor
    active: int
    has_tokens: bool


@triton.jit
def _further_decoder_kernel(
    order_P, starts_M, first_segment_M, latent_T, tokens_P, acts_P, grad_NE, W_dec_ME, slopes_P,
    part_dec_TE, part_bias_T, part_counts_T, num_latents, active,
    E: tl.constexpr, E1: tl.constexpr, E2: tl.constexpr, UNROLL: tl.constexpr,
    LENGTH: tl.constexpr, HAS_TOKENS: tl.constexpr, STRAIGHT_THROUGH: tl.constexpr,
):  # fmt: skip
    slot = tl.program_id(0)
    latent = tl.load(latent_T + slot)
    if latent < num_latents:
        begin, end = entries_of(slot + latent + 1, latent, starts_M, first_segment_M, LENGTH)
        dec1, dec2, bias, count = sum_decoder(
            begin, end, latent.to(tl.int64), order_P, tokens_P, acts_P, grad_NE, W_dec_ME, slopes_P, active,
            E, E1, E2, UNROLL, HAS_TOKENS, STRAIGHT_THROUGH,
        )  # fmt: skip
        store_row(part_dec_TE, slot.to(tl.int64), dec1, dec2, E, E1, E2)
        tl.store(part_bias_T + slot, bias)
        tl.store(part_counts_T + slot, count)


@triton.jit
def _further_encoder_kernel(
    order_P, starts_M, first_segment_M, latent_T, tokens_P, slopes_P, x_ND, part_enc_TD, num_latents, active,
    SLABS: tl.constexpr, W: tl.constexpr, W1: tl.constexpr, W2: tl.constexpr, UNROLL: tl.constexpr,
    LENGTH: tl.constexpr, HAS_TOKENS: tl.constexpr,
):  # fmt: skip
    slot = tl.program_id(0)
    slab = tl.program_id(1)
    latent = tl.load(latent_T + slot)
    if latent < num_latents:
        begin, end = entries_of(slot + latent + 1, latent, starts_M, first_segment_M, LENGTH)
        enc1, enc2 = sum_encoder(
            begin, end, slab, order_P, tokens_P, slopes_P, x_ND, active, SLABS, W, W1, W2, UNROLL, HAS_TOKENS
        )  # fmt: skip
        store_row(part_enc_TD, slot.to(tl.int64) * SLABS + slab, enc1, enc2, W, W1, W2)


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
    by_latent: ByLatent, entries: EntryTensors, *, straight_through: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Decoder (T, E), encoder (T, D), bias (T), all float32, and counts (T) int32 of the further segments; of every
    COMBINED_ROWS of a latent the first has the sum of all. Fills in the slopes of these segments' entries.
    """
    (num_latents, E), D, num_parts = entries.rows_ME.shape, entries.x_ND.shape[1], len(by_latent.latent_T)
    like = {"dtype": torch.float32, "device": by_latent.latent_T.device}
    part_dec_TE, part_enc_TD = torch.empty(num_parts, E, **like), torch.empty(num_parts, D, **like)
    part_bias_T, part_counts_T = torch.empty(num_parts, **like), torch.empty_like(by_latent.latent_T)
    parts = (part_dec_TE, part_enc_TD, part_bias_T, part_counts_T)
    if num_parts:
        segments = (by_latent.order_P, by_latent.starts_M, by_latent.first_segment_M, by_latent.latent_T)
        options = {"LENGTH": SEGMENT, "HAS_TOKENS": entries.has_tokens}
        _further_decoder_kernel[(num_parts,)](
            *segments, entries.tokens, entries.acts, entries.grad_NE, entries.rows_ME, entries.slopes,
            part_dec_TE, part_bias_T, part_counts_T, num_latents, entries.active,
            **decoder_launch(E)._asdict(), **options, STRAIGHT_THROUGH=straight_through,
        )  # fmt: skip
        launch = encoder_launch(entries.x_ND)
        _further_encoder_kernel[(num_parts, launch.SLABS)](
            *segments, entries.tokens, entries.slopes, entries.x_ND, part_enc_TD, num_latents, entries.active,
            **launch._asdict(), **options,
        )  # fmt: skip
        columns = min(MAX_COMBINED_COLUMNS, triton.next_power_of_2(max(D, E)))
        _gather_kernel[(num_parts, triton.cdiv(max(D, E), columns))](
            by_latent.latent_T, by_latent.first_segment_M, *parts, num_latents,
            E, D, ROWS=COMBINED_ROWS, COLUMNS=columns, num_warps=4,
        )  # fmt: skip
    return parts
