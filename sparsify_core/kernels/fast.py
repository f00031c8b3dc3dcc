"""How a sparse coder trains on CUDA: the Triton kernels put together. Imported only there.

The encoder computes in bfloat16 and sums in float32, as upstream's autocast does; weights and gradients are float32.
Every operation gives the same bits in every run.

Legend: N tokens, M latents, K active latents per token, D input width, E output width.
"""

from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from sparsify_core.kernels import batchtopk, dispatch, groupmax, topk
from sparsify_core.kernels.decode import decode
from sparsify_core.kernels.encode_gemm import encode_gemm
from sparsify_core.kernels.maxima import group_maxima
from sparsify_core.kernels.reference import SparseGradients
from sparsify_core.kernels.sparse_code import sparse_code
from sparsify_core.kernels.sparse_grads import sparse_gradients


def encode(x_ND: Tensor, weight: Tensor, bias_M: Tensor) -> tuple[Tensor, Tensor]:
    """Pre-activations (N, M) and the maxima of their groups, both bfloat16, of bfloat16 input and weight (M, D)."""
    latents, width = weight.shape
    if dispatch.choose_encoder(x_ND.device, tokens=len(x_ND), latents=latents, width=width).is_kernel:
        return encode_gemm(x_ND, weight, bias_M.detach())
    pre_NM = functional.linear(x_ND, weight, bias_M.detach().bfloat16())
    return pre_NM, group_maxima(pre_NM)


def select(pre_NM: Tensor, max_NJ: Tensor, activation: str, k: int) -> tuple[Tensor, Tensor | None, Tensor]:
    """Indices, for batchtopk the token of each, and activations, as `model.coder.Selection` has them."""
    tokens, latents = pre_NM.shape
    is_kernel = dispatch.choose_selection(activation, tokens=tokens, latents=latents, k=k).is_kernel
    if activation == "batchtopk":
        if not is_kernel:  # while k decays it may be too large
            acts, places = pre_NM.flatten().topk(tokens * k, sorted=False)
            places, order = places.sort()
            return places % latents, places // latents, acts[order].relu_()
        chosen = batchtopk.select_batchtopk(pre_NM, max_NJ, k)
        return chosen.latents, chosen.tokens, chosen.acts
    if activation == "groupmax":
        acts, indices = groupmax.select_groupmax(pre_NM, k, max_NJ)
    elif not is_kernel:
        acts, indices = pre_NM.topk(k, dim=-1, sorted=False)
        acts = acts.relu_()
    else:
        acts, indices = topk.select_topk(pre_NM, max_NJ, k)
    return indices, None, acts


def select_nested(pre_NM: Tensor, max_NJ: Tensor, first: int, k: int) -> tuple[Tensor, None, Tensor]:
    """The k largest latents of each token, the `first` largest before the others: as `select`."""
    acts, indices = topk.select_topk(pre_NM, max_NJ, k, first=first)
    return indices, None, acts


def select_among(pre_NM: Tensor, candidates_C: Tensor, k: int) -> tuple[Tensor, None, Tensor]:
    """The k largest of the latents `candidates_C` of each token: indices, None and activations, as `select`."""
    pre_NC = pre_NM.index_select(1, candidates_C)
    indices, _, acts = select(pre_NC, group_maxima(pre_NC), "topk", k)
    return candidates_C[indices], None, acts


def code(
    x_ND: Tensor,
    centre_D: Tensor | None,
    W_enc_MD: Tensor,
    b_enc_M: Tensor,
    W_dec_ME: Tensor,
    low_W_dec: Tensor,
    acts: Tensor,
    indices: Tensor,
    tokens_P: Tensor | None,
    *,
    straight_through: bool,
) -> Tensor:
    """`sparse_code` with the kernels: bfloat16 rows are read, float32 sums returned (N, E), without a bias.

    Args:
        low_W_dec: `W_dec_ME` in bfloat16.
    """
    return sparse_code(
        x_ND,
        W_enc_MD,
        b_enc_M,
        W_dec_ME,
        acts,
        indices,
        tokens_P,
        centre_D=centre_D,
        straight_through=straight_through,
        decode=partial(_decode, low_W_dec),
        gradients=partial(_gradients, low_W_dec),
    )


def _decode(low_W_dec: Tensor, indices: Tensor, acts: Tensor, W_dec: Tensor, offsets_N: Tensor | None) -> Tensor:
    nothing_E = low_W_dec.new_zeros(low_W_dec.shape[1])
    offsets = None if offsets_N is None else functional.pad(offsets_N, (0, 1), value=len(acts))
    return decode(acts, indices, low_W_dec, nothing_E, dtype=torch.float32, offsets=offsets)


def _gradients(
    low_W_dec: Tensor,
    x_ND: Tensor,
    grad_NE: Tensor,
    acts: Tensor,
    indices: Tensor,
    W_dec: Tensor,
    **options: Tensor | bool | None,
) -> SparseGradients:
    return sparse_gradients(x_ND, grad_NE.bfloat16(), acts, indices, low_W_dec, **options)  # type: ignore[arg-type]
