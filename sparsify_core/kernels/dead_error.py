"""The AuxK loss by dense products: so many of the dead latents are kept that gathering their rows would cost more.

Legend: N tokens, M latents, C dead ones of them, padded, D width of the input, E of the residual.
"""

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from sparsify_core.kernels import dispatch
from sparsify_core.kernels.keep import keep_largest
from sparsify_core.kernels.masked_gemm import multiply_masked

_MULTIPLE = 256
"""Products run several times as fast when the width is a multiple of 64. Of this one there are fewer shapes, for each
of which memory is set aside."""


class _DeadError(torch.autograd.Function):
    """See `dead_error`."""

    @staticmethod
    def forward(
        ctx, x_ND, centre_D, W_enc_MD, b_enc_M, W_dec_ME, low_W_enc, low_W_dec, residual_NE, dead_C, k
    ):  # fmt: skip
        columns = len(dead_C)
        # The padding repeats a latent and is never kept.
        padded_C = torch.cat([dead_C, dead_C[:1].expand(-columns % _MULTIPLE)])
        W_enc_CD, W_dec_CE = low_W_enc.index_select(0, padded_C), low_W_dec.index_select(0, padded_C)
        pre_NC = functional.linear(x_ND, W_enc_CD, b_enc_M.index_select(0, padded_C).bfloat16())
        acts_NC = keep_largest(pre_NC, k, columns, out=pre_NC)
        error_NE = (acts_NC @ W_dec_CE).sub_(residual_NE)
        ctx.save_for_backward(x_ND, W_enc_MD, W_enc_CD, W_dec_CE, acts_NC, error_NE, dead_C)
        return torch.linalg.vector_norm(error_NE, dtype=torch.float32).square()

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        x_ND, W_enc_MD, W_enc_CD, W_dec_CE, acts_NC, error_NE, dead_C = ctx.saved_tensors
        _, needs_centre, needs_W_enc, *_ = ctx.needs_input_grad
        num_latents, factor = len(W_enc_MD), 2 * grad
        to_W_dec = _spread(_multiply(acts_NC.T, error_NE), dead_C, num_latents, factor)
        if not needs_W_enc:
            return (*[None] * 4, to_W_dec, *[None] * 5)
        to_acts_NC, to_bias_C = _multiply_masked(error_NE, W_dec_CE, acts_NC)
        return (
            None,
            -factor * (to_bias_C @ W_enc_CD.float()) if needs_centre else None,
            _spread(_multiply(to_acts_NC.T, x_ND), dead_C, num_latents, factor),
            _spread(to_bias_C, dead_C, num_latents, factor),
            to_W_dec,
            *[None] * 5,
        )


def dead_error(
    x_ND: Tensor,
    centre_D: Tensor | None,
    W_enc_MD: Tensor,
    b_enc_M: Tensor,
    W_dec_ME: Tensor,
    low_W_enc: Tensor,
    low_W_dec: Tensor,
    residual_NE: Tensor,
    dead_C: Tensor,
    k: int,
) -> Tensor:
    """sum |what the k strongest of the latents `dead_C` decode to - residual|^2, a float32 scalar with its graph.

    Args:
        x_ND, residual_NE: bfloat16, without a graph.
        centre_D: what was subtracted from the input to get `x_ND`; None where nothing was.
        W_enc_MD, b_enc_M: without a graph where the gradient shall reach the decoder alone.
        low_W_enc, low_W_dec: the matrices in bfloat16.
        dead_C: at most dispatch.MAX_DEAD indices, int64, each once.
    """
    return _DeadError.apply(x_ND, centre_D, W_enc_MD, b_enc_M, W_dec_ME, low_W_enc, low_W_dec, residual_NE, dead_C, k)


def _multiply(left: Tensor, right: Tensor) -> Tensor:
    """The product of bfloat16 matrices in float32: its sums run over all tokens."""
    if left.is_cuda:
        return torch.mm(left, right, out_dtype=torch.float32)
    return left.float() @ right.float()


def _multiply_masked(error_NE: Tensor, W_dec_CE: Tensor, acts_NC: Tensor) -> tuple[Tensor, Tensor]:
    """The gradient of the activations, 0 where the latent is not kept, and its sums over the tokens, float32."""
    tokens, width = error_NE.shape
    if dispatch.choose_dead_gradient(error_NE.device, tokens=tokens, width=width).is_kernel:
        return multiply_masked(error_NE, W_dec_CE, acts_NC)
    to_acts_NC = torch.ops.aten.threshold_backward(error_NE @ W_dec_CE.T, acts_NC, 0)
    return to_acts_NC, to_acts_NC.sum(0, dtype=torch.float32)


def _spread(rows: Tensor, dead_C: Tensor, num_latents: int, factor: Tensor) -> Tensor:
    """The gradient of all latents: `factor` times that of the dead ones, 0 for the others."""
    gradient = rows.new_zeros(num_latents, *rows.shape[1:])
    return gradient.index_copy_(0, dead_C, rows[: len(dead_C)] * factor)
