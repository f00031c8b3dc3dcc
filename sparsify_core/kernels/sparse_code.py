"""The sparse coder between its activations and the decoded, as one differentiable operation."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from sparsify_core.kernels import reference
from sparsify_core.kernels.reference import SparseGradients, starts, weighted_rows


class _SparseCode(torch.autograd.Function):
    """See `sparse_code`."""

    @staticmethod
    def forward(
        ctx, x_ND, centre_D, W_enc_MD, b_enc_M, W_dec_ME, acts, indices, tokens_P, straight_through, decode, gradients
    ):
        ctx.straight_through, ctx.gradients = straight_through, gradients
        ctx.save_for_backward(x_ND, W_enc_MD, W_dec_ME, acts, indices, tokens_P)
        offsets_N = None if tokens_P is None else starts(tokens_P, len(x_ND))
        return decode(indices, acts, W_dec_ME, offsets_N)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_NE):
        x_ND, W_enc_MD, W_dec_ME, acts, indices, tokens_P = ctx.saved_tensors
        needs_x, needs_centre, needs_W_enc, needs_b_enc, needs_W_dec, *_ = ctx.needs_input_grad
        grads = ctx.gradients(
            x_ND,
            grad_NE.contiguous(),
            acts,
            indices,
            W_dec_ME,
            tokens_P=tokens_P,
            straight_through=ctx.straight_through,
            with_acts=needs_x,
        )
        grad_x = grad_centre = None
        if needs_x:
            offsets_N = None if tokens_P is None else starts(tokens_P, len(x_ND))
            grad_x = weighted_rows(indices.long(), grads.acts.to(W_enc_MD.dtype), W_enc_MD, offsets_N).to(x_ND.dtype)
        if needs_centre:
            # Minus the sum of x's gradient over all tokens, without that (N, D) matrix.
            grad_centre = -(grads.b_enc_M.to(W_enc_MD.dtype) @ W_enc_MD)
        return (
            grad_x,
            grad_centre,
            grads.W_enc_MD if needs_W_enc else None,
            grads.b_enc_M if needs_b_enc else None,
            grads.W_dec_ME if needs_W_dec else None,
            *[None] * 6,
        )


def sparse_code(
    x_ND: Tensor,
    W_enc_MD: Tensor,
    b_enc_M: Tensor,
    W_dec_ME: Tensor,
    acts: Tensor,
    indices: Tensor,
    tokens_P: Tensor | None = None,
    *,
    centre_D: Tensor | None = None,
    straight_through: bool = False,
    decode: Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor] = weighted_rows,
    gradients: Callable[..., SparseGradients] = reference.sparse_gradients,
) -> Tensor:
    """decoded[n] = sum_k acts[n, k] * W_dec[indices[n, k]], with acts = relu(x . W_enc + b_enc) computed before.

    The gradient goes to x, W_enc, b_enc and W_dec; `acts` is a number that the caller knows already, without a graph.

    Args:
        acts, indices, tokens_P: (N, K) both, or lists (P) with the token of each entry, ascending.
        centre_D: what was subtracted from the input to get `x_ND`, outside the graph. It gets its gradient here, by one
            product of a vector and a matrix instead of an (N, D) gradient of x.
        straight_through: let gradients pass latents that the ReLU cut off, as upstream does.
        decode: (indices, acts, W_dec_ME, offsets_N) -> (N, E), see reference.weighted_rows.
        gradients: see reference.sparse_gradients; their type must be that of the weights.

    Returns:
        (N, E), without a bias.

    Raises:
        ValueError: `acts` has a graph, which would end here.
    """
    if acts.requires_grad:
        raise ValueError("activations have a graph that sparse_code does not continue: detach them")
    return _SparseCode.apply(
        x_ND, centre_D, W_enc_MD, b_enc_M, W_dec_ME, acts, indices, tokens_P, straight_through, decode, gradients
    )
