"""The squared error of a sparse coder with its gradients: decoder, subtraction and squares are one pass.

Legend: N tokens, M latents, K active latents per token, D input width, E output width.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from sparsify_core.kernels.decode import decode_residual
from sparsify_core.kernels.decode_nested import decode_nested
from sparsify_core.kernels.reference import starts
from sparsify_core.kernels.sparse_grads import sparse_gradients


class Weights(NamedTuple):
    """Parameters of a coder, float32: without a graph where no gradient shall reach them.

    `centre_D` is what was subtracted from the input to get what the encoder read; None where nothing was.
    """

    centre_D: Tensor | None
    W_enc_MD: Tensor
    b_enc_M: Tensor
    W_dec_ME: Tensor
    b_dec_E: Tensor


class _SquaredError(torch.autograd.Function):
    """See `squared_error`."""

    @staticmethod
    def forward(
        ctx,
        centre_D,
        W_enc_MD,
        b_enc_M,
        W_dec_ME,
        b_dec_E,
        target_NE,
        x_ND,
        low_W_dec,
        acts,
        indices,
        tokens_P,
        through,
        fired_M,
    ):
        offsets = None
        if tokens_P is not None:
            offsets = functional.pad(starts(tokens_P, len(x_ND)), (0, 1), value=len(acts))
        residual_NE, square_N = decode_residual(
            acts, indices, low_W_dec, b_dec_E, target_NE, dtype=torch.bfloat16, offsets=offsets
        )
        ctx.options, ctx.fired_M = {"straight_through": through}, fired_M
        ctx.save_for_backward(W_enc_MD, x_ND, residual_NE, acts, indices, low_W_dec, tokens_P)
        ctx.mark_non_differentiable(residual_NE)
        return square_N.sum(), residual_NE

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_error, _):
        W_enc_MD, x_ND, residual_NE, acts, indices, low_W_dec, tokens_P = ctx.saved_tensors
        entries = (x_ND, residual_NE, acts, indices, low_W_dec)
        options = {**ctx.options, "tokens_P": tokens_P}
        gradients = _gradients(ctx.needs_input_grad, grad_error, W_enc_MD, entries, options, residual_NE, ctx.fired_M)
        return (*gradients, *[None] * 7)


class _NestedError(torch.autograd.Function):
    """See `nested_error`."""

    @staticmethod
    def forward(
        ctx, centre_D, W_enc_MD, b_enc_M, W_dec_ME, b_dec_E, target_NE, x_ND, low_W_dec, acts, indices, first, weight
    ):
        found = decode_nested(acts, indices, low_W_dec, b_dec_E, target_NE, first=first, weight=weight)
        ctx.options = {"first": first}
        ctx.save_for_backward(W_enc_MD, x_ND, found.rows_N2E, acts, indices, low_W_dec)
        errors_2 = found.squares_2N.sum(1)
        ctx.mark_non_differentiable(errors_2, found.residual_NE)
        return errors_2[0] + weight * errors_2[1], errors_2, found.residual_NE

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_loss, *_):
        W_enc_MD, *entries = ctx.saved_tensors
        summed_NE = entries[1][:, 0]
        return (*_gradients(ctx.needs_input_grad, grad_loss, W_enc_MD, entries, ctx.options, summed_NE), *[None] * 6)


def _gradients(
    needs: Any,
    grad: Tensor,
    W_enc_MD: Tensor,
    entries: Any,
    options: dict[str, Any],
    residual_NE: Tensor,
    fired_M: Tensor | None = None,
) -> tuple[Tensor | None, ...]:
    """Of the weights and of the target, for squares whose derivative is -2 * residual."""
    needs_centre, needs_W_enc, needs_b_enc, needs_W_dec, needs_b_dec, needs_target, *_ = needs
    # Linear in the residual: the factor is applied to the sums, of which there are fewer.
    factor = (-2 * grad).float()
    grads = sparse_gradients(*entries, scale=factor, **options)
    if fired_M is not None:
        fired_M += grads.counts_M
    return (
        -(grads.b_enc_M @ W_enc_MD) if needs_centre else None,
        grads.W_enc_MD if needs_W_enc else None,
        grads.b_enc_M if needs_b_enc else None,
        grads.W_dec_ME if needs_W_dec else None,
        residual_NE.sum(0, dtype=torch.float32) * factor if needs_b_dec else None,
        residual_NE.float() * -factor if needs_target else None,
    )


def squared_error(
    weights: Weights,
    target_NE: Tensor,
    x_ND: Tensor,
    low_W_dec: Tensor,
    acts: Tensor,
    indices: Tensor,
    tokens_P: Tensor | None,
    *,
    straight_through: bool,
    fired_M: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """sum |target - decoded - b_dec|^2, a float32 scalar with its graph, and the residual (N, E) bfloat16 without one.

    Args:
        target_NE: bfloat16 or float32.
        x_ND: what the encoder read, bfloat16, without a graph.
        low_W_dec: the decoder in bfloat16.
        acts, indices, tokens_P: the active latents, as `model.coder.Latents` has them.
        straight_through: let gradients pass latents that the ReLU cut off.
        fired_M: int32, to which backward adds on how many tokens each latent is positive.
    """
    entries = (x_ND, low_W_dec, acts, indices, tokens_P)
    return _SquaredError.apply(*weights, target_NE, *entries, straight_through, fired_M)


def nested_error(
    weights: Weights,
    target_NE: Tensor,
    x_ND: Tensor,
    low_W_dec: Tensor,
    acts: Tensor,
    indices: Tensor,
    *,
    first: int,
    weight: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """The squared error with the `first` latents of each token, and `weight` times the one with all of them.

    Both reconstructions are made in one pass, and their gradients in another one.

    Args:
        acts, indices: (N, K); the rest as in `squared_error`.

    Returns:
        The sum, a float32 scalar with its graph; both errors, (2); and the residual (N, E) bfloat16 that the `first`
        leave, these without a graph.
    """
    return _NestedError.apply(*weights, target_NE, x_ND, low_W_dec, acts, indices, first, weight)
