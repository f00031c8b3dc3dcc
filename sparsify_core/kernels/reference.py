"""The PyTorch truth of the sparse operations; runs on every device, and every fused kernel is tested against it.

Legend: N tokens, K active latents per token, M latents, D width.
"""

import torch
from torch import Tensor
from torch.nn import functional


def weighted_rows(indices_NK: Tensor, weights_NK: Tensor, table_MD: Tensor) -> Tensor:
    """out[n] = sum_k weights[n, k] * table[indices[n, k]], the decoder. Differentiable in weights and table.

    Args:
        indices_NK: int64, repeated indices add up.
        weights_NK: same dtype as the table.

    Returns:
        (N, D) in the table's dtype; no (N, K, D) product is ever built.
    """
    return functional.embedding_bag(indices_NK, table_MD, per_sample_weights=weights_NK, mode="sum")


def scatter_rows(indices_NK: Tensor, weights_NK: Tensor, rows_ND: Tensor, num_rows: int) -> Tensor:
    """out[m] = sum over the (n, k) with indices[n, k] = m of weights[n, k] * rows[n]: the transpose of `weighted_rows`.

    Sorting the entries by latent turns the scatter into a gather: no atomics, no (N, K, D) product, a fixed order.
    """
    flat = indices_NK.flatten()
    order = flat.argsort(stable=True)
    counts = torch.bincount(flat, minlength=num_rows)
    return functional.embedding_bag(
        order // indices_NK.shape[1],
        rows_ND,
        offsets=counts.cumsum(0) - counts,
        per_sample_weights=weights_NK.flatten()[order],
        mode="sum",
    )


class _GatherLatents(torch.autograd.Function):
    """See `gather_latents`."""

    @staticmethod
    def forward(ctx, x_ND, weight_MD, bias_M, pre_NM, indices_NK):
        acts_NK = pre_NM.gather(1, indices_NK).relu_()
        ctx.save_for_backward(x_ND, weight_MD, acts_NK, indices_NK)
        return acts_NK

    @staticmethod
    def backward(ctx, grad_NK):
        x_ND, weight_MD, acts_NK, indices_NK = ctx.saved_tensors
        # A latent that the ReLU cut off has no slope; a straight-through gradient here would push it without cause.
        grad_NK = torch.where(acts_NK > 0, grad_NK, 0)
        num_latents = weight_MD.shape[0]
        grad_x = weighted_rows(indices_NK, grad_NK, weight_MD) if ctx.needs_input_grad[0] else None
        grad_weight = scatter_rows(indices_NK, grad_NK, x_ND, num_latents) if ctx.needs_input_grad[1] else None
        grad_bias = None
        if ctx.needs_input_grad[2]:
            grad_bias = torch.zeros(num_latents, dtype=grad_NK.dtype, device=grad_NK.device)
            grad_bias.index_add_(0, indices_NK.flatten(), grad_NK.flatten())
        return grad_x, grad_weight, grad_bias, None, None


def gather_latents(x_ND: Tensor, weight_MD: Tensor, bias_M: Tensor, pre_NM: Tensor, indices_NK: Tensor) -> Tensor:
    """acts[n, k] = relu(x[n] . weight[j] + bias[j]) with j = indices[n, k].

    The value is taken from `pre_NM` (computed once, without a graph, because the selection needs all of it); the
    gradient goes to x, weight and bias through the selected entries alone, so no (N, M) gradient exists.
    """
    return _GatherLatents.apply(x_ND, weight_MD, bias_M, pre_NM, indices_NK)
