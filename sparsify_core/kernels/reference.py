"""The PyTorch truth of the sparse operations; runs on every device, and every fused kernel is tested against it.

Legend: N tokens, K active latents per token, M latents, D width. Where tokens have different numbers of latents, these
are listed one token after the other: P entries in all, with the token of each.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional


def weighted_rows(indices: Tensor, weights: Tensor, table_MD: Tensor, offsets_N: Tensor | None = None) -> Tensor:
    """out[n] = sum_k weights[n, k] * table[indices[n, k]], the decoder. Differentiable in weights and table.

    Args:
        indices: int64 (N, K), repeated indices add up; or (P) with `offsets_N`.
        weights: of the same shape, in the dtype of the table.
        offsets_N: where each token's entries begin, for a list (P).

    Returns:
        (N, D) in the table's dtype; no (N, K, D) product is ever built.
    """
    return functional.embedding_bag(indices, table_MD, offsets_N, per_sample_weights=weights, mode="sum")


def starts(keys_P: Tensor, num_keys: int) -> Tensor:
    """(num_keys) where each key's entries begin in ascending `keys_P`."""
    # Unlike bincount, this neither looks at the values on the host nor adds in an order that changes.
    return torch.searchsorted(keys_P, torch.arange(num_keys, device=keys_P.device))


def scatter_rows(
    indices: Tensor, weights: Tensor, rows_ND: Tensor, num_rows: int, tokens_P: Tensor | None = None
) -> Tensor:
    """out[m] = sum over the (n, k) with indices[n, k] = m of weights[n, k] * rows[n]: the transpose of `weighted_rows`.

    Sorting the entries by latent turns the scatter into a gather: no atomics, no (N, K, D) product, a fixed order.

    Args:
        tokens_P: the token of each entry, for a list (P) instead of (N, K).
    """
    latents, order = indices.flatten().sort(stable=True)
    return functional.embedding_bag(
        order // indices.shape[1] if tokens_P is None else tokens_P[order],
        rows_ND,
        offsets=starts(latents, num_rows),
        per_sample_weights=weights.flatten()[order],
        mode="sum",
    )


def scatter_sums(indices: Tensor, weights: Tensor, num_sums: int) -> Tensor:
    """out[m] = sum of the weights whose index is m, in a fixed order: `index_add_` adds as it comes on CUDA."""
    latents, order = indices.flatten().sort(stable=True)
    one = weights.new_ones(1, 1)
    begin = starts(latents, num_sums)
    weights_P = weights.flatten()[order]
    return functional.embedding_bag(
        torch.zeros_like(order), one, offsets=begin, per_sample_weights=weights_P, mode="sum"
    ).squeeze(1)


class _GatherLatents(torch.autograd.Function):
    """See `gather_latents`."""

    @staticmethod
    def forward(ctx, x_ND, weight_MD, bias_M, pre_NM, indices, tokens_P, straight_through):
        chosen = pre_NM.gather(1, indices) if tokens_P is None else pre_NM[tokens_P, indices]
        acts = chosen.relu_()
        ctx.straight_through = straight_through
        ctx.save_for_backward(x_ND, weight_MD, acts, indices, tokens_P)
        return acts

    @staticmethod
    def backward(ctx, grad):
        x_ND, weight_MD, acts, indices, tokens_P = ctx.saved_tensors
        if not ctx.straight_through:
            # A latent that the ReLU cut off has no slope; a gradient here would push it without cause.
            grad = torch.where(acts > 0, grad, 0)
        num_latents = weight_MD.shape[0]
        grad_x = grad_weight = grad_bias = None
        if ctx.needs_input_grad[0]:
            offsets_N = None if tokens_P is None else starts(tokens_P, x_ND.shape[0])
            grad_x = weighted_rows(indices, grad, weight_MD, offsets_N)
        if ctx.needs_input_grad[1]:
            grad_weight = scatter_rows(indices, grad, x_ND, num_latents, tokens_P)
        if ctx.needs_input_grad[2]:
            grad_bias = scatter_sums(indices, grad, num_latents)
        return grad_x, grad_weight, grad_bias, None, None, None, None


def gather_latents(
    x_ND: Tensor,
    weight_MD: Tensor,
    bias_M: Tensor,
    pre_NM: Tensor,
    indices: Tensor,
    tokens_P: Tensor | None = None,
    *,
    straight_through: bool = False,
) -> Tensor:
    """acts[n, k] = relu(x[n] . weight[j] + bias[j]) with j = indices[n, k].

    The value is taken from `pre_NM` (computed once, without a graph, because the selection needs all of it); the
    gradient goes to x, weight and bias through the selected entries alone, so no (N, M) gradient exists.

    Args:
        indices: int64 (N, K), or (P) with `tokens_P`.
        tokens_P: int64, ascending: the token of each entry.
        straight_through: let the gradient pass where the ReLU gave 0, as upstream does.

    Returns:
        Of the shape of `indices`.
    """
    return _GatherLatents.apply(x_ND, weight_MD, bias_M, pre_NM, indices, tokens_P, straight_through)


class SparseGradients(NamedTuple):
    """Gradients of the rows of a sparse coder, float32 (float64 from float64 input); zero for latents without entries.

    W_dec_ME (M, E), W_enc_MD (M, D), b_enc_M (M). `counts_M` int32: on how many tokens each latent is positive.
    `acts`: gradient of the activations, of their shape; None where it was not asked for.
    """

    W_dec_ME: Tensor
    W_enc_MD: Tensor
    b_enc_M: Tensor
    counts_M: Tensor
    acts: Tensor | None = None


@torch.no_grad()
def sparse_gradients(
    x_ND: Tensor,
    grad_NE: Tensor,
    acts: Tensor,
    indices: Tensor,
    W_dec_ME: Tensor,
    *,
    tokens_P: Tensor | None = None,
    straight_through: bool = False,
    with_acts: bool = False,
) -> SparseGradients:
    """Gradients of a loss behind decoded[n] = sum_k acts[n, k] * W_dec[j] with acts = relu(x . W_enc[j] + b_enc[j]).

    With j = indices[n, k] and slope[n, k] = grad[n] . W_dec[j], which is 0 where the ReLU cut the latent off:
    W_dec[j] += acts[n, k] * grad[n];  W_enc[j] += slope[n, k] * x[n];  b_enc[j] += slope[n, k].

    Args:
        x_ND: what the encoder read.
        grad_NE: gradient of the decoded.
        acts: >= 0, (N, K), or a list (P) with `tokens_P`, the token of each entry in ascending order.
        indices: of the shape of `acts`.
        straight_through: keep the slope where the activation is 0, as upstream does.
        with_acts: return the slopes too.
    """
    dtype = torch.promote_types(W_dec_ME.dtype, torch.float32)
    x_ND, grad_NE, acts, W_dec_ME = (t.to(dtype) for t in (x_ND, grad_NE, acts, W_dec_ME))
    indices = indices.long()
    num_latents = len(W_dec_ME)
    with torch.enable_grad():
        weights = acts.detach().requires_grad_()
        offsets_N = None if tokens_P is None else starts(tokens_P, len(x_ND))
        decoded_NE = weighted_rows(indices, weights, W_dec_ME.detach(), offsets_N)
    (slopes,) = torch.autograd.grad(decoded_NE, weights, grad_NE)
    if not straight_through:
        slopes = torch.where(acts > 0, slopes, 0)
    return SparseGradients(
        scatter_rows(indices, acts, grad_NE, num_latents, tokens_P),
        scatter_rows(indices, slopes, x_ND, num_latents, tokens_P),
        scatter_sums(indices, slopes, num_latents),
        indices.new_zeros(num_latents, dtype=torch.int32).index_add_(0, indices.flatten(), (acts > 0).flatten().int()),
        slopes if with_acts else None,
    )


def group_maxima(pre_NM: Tensor, group: int) -> Tensor:
    """(N, ceil(M / group)) maxima of relu(pre) over groups of neighbouring latents; the last group may be shorter."""
    padded = functional.pad(pre_NM.relu(), (0, -pre_NM.shape[1] % group))
    return padded.view(len(pre_NM), -1, group).amax(-1)


def select_topk(pre_NM: Tensor, k: int, *, first: int | None = None) -> tuple[Tensor, Tensor]:
    """acts (N, K) and latents (N, K) int32: the k largest of relu(pre), equal ones by lowest latent, ascending; with
    `first`, so many of the largest ascending, and then the others.
    """
    acts_NM = pre_NM.relu()
    order = acts_NM.sort(dim=1, descending=True, stable=True).indices
    first = k if first is None else first
    latents = torch.cat([part.sort(dim=1).values for part in (order[:, :first], order[:, first:k])], 1)
    return acts_NM.gather(1, latents), latents.int()


def select_groupmax(pre_NM: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """acts (N, K) and latents (N, K) int32: the largest of relu(pre) in each of k groups, the lowest of equal ones."""
    tokens, num_latents = pre_NM.shape
    groups_NKS = pre_NM.relu().view(tokens, k, num_latents // k)
    places = groups_NKS.argmax(-1, keepdim=True)
    first = torch.arange(0, num_latents, num_latents // k, device=pre_NM.device)
    return groups_NKS.gather(-1, places).squeeze(-1), (places.squeeze(-1) + first).int()


def decode_residual(
    acts: Tensor, indices: Tensor, W_dec_ME: Tensor, b_dec_E: Tensor, target_NE: Tensor, offsets: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """target - (sum_k acts * W_dec[indices] + b_dec), (N, E) in the dtype of `W_dec_ME`, and its squared norms (N).

    Args:
        offsets: (N + 1), where each token's entries begin, and their number, for lists (P).
    """
    starts_N = None if offsets is None else offsets[:-1]
    residual_NE = target_NE - weighted_rows(indices, acts, W_dec_ME, starts_N) - b_dec_E
    return residual_NE, residual_NE.square().sum(1)


def select_batchtopk(pre_NM: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """acts (N * k), tokens and latents int32, and the smallest of the acts: the N * k largest of relu(pre) of a batch,
    equal ones by lowest token, then latent; token by token."""
    acts_P = pre_NM.relu().flatten()
    order = acts_P.sort(descending=True, stable=True).indices[: len(pre_NM) * k]
    cells = order.sort().values
    return acts_P[cells], (cells // pre_NM.shape[1]).int(), (cells % pre_NM.shape[1]).int(), acts_P[order[-1]]


def cross_entropy(logits_NV: Tensor, targets_N: Tensor, *, needs_gradient: bool = True) -> tuple[Tensor, Tensor | None]:
    """loss[n] = -log softmax(logits[n])[targets[n]], 0 where the target is negative: (N), float32 for half precision.

    Returns:
        The loss, and d loss[n] / d logits[n] in the dtype of the logits, or None.
    """
    counts_N = targets_N >= 0
    index_N1 = targets_N.clamp(min=0)[:, None]
    log_q_NV = logits_NV.log_softmax(-1, dtype=_wide(logits_NV.dtype))
    loss_N = torch.where(counts_N, -log_q_NV.gather(1, index_N1)[:, 0], 0)
    if not needs_gradient:
        return loss_N, None
    grad_NV = log_q_NV.exp_()
    grad_NV.scatter_add_(1, index_N1, grad_NV.new_full((1, 1), -1).expand_as(index_N1))
    return loss_N, grad_NV.mul_(counts_N[:, None]).to(logits_NV.dtype)


def kl_divergence(logits_NV: Tensor, clean_NV: Tensor, *, needs_gradient: bool = True) -> tuple[Tensor, Tensor | None]:
    """loss[n] = sum_v p_v (log p_v - log q_v), p from the clean logits, q from `logits_NV`; as `cross_entropy`."""
    wide = _wide(logits_NV.dtype)
    log_q_NV, log_p_NV = logits_NV.log_softmax(-1, dtype=wide), clean_NV.log_softmax(-1, dtype=wide)
    loss_N = functional.kl_div(log_q_NV, log_p_NV, log_target=True, reduction="none").sum(-1)
    if not needs_gradient:
        return loss_N, None
    return loss_N, log_q_NV.exp_().sub_(log_p_NV.exp_()).to(logits_NV.dtype)


def _wide(dtype: torch.dtype) -> torch.dtype:
    """At least float32: half precision has too few digits for a sum over a vocabulary."""
    return torch.promote_types(dtype, torch.float32)
