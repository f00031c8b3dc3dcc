"""Which latents stay active. Indices only: values and gradients come from `kernels.gather_latents`."""

from collections.abc import Iterable

import torch
from torch import Tensor


def select_topk(pre_NM: Tensor, k: int) -> Tensor:
    """(N, k) int64 indices of the k largest pre-activations, unsorted.

    The ReLU is not applied first: it keeps the order, and a latent below zero gets the value 0 afterwards anyway.
    """
    return pre_NM.topk(k, dim=-1, sorted=False).indices


def select_groupmax(pre_NM: Tensor, k: int) -> Tensor:
    """(N, k) int64 indices: the latents are cut into k groups of neighbours, and the largest of each stays.

    M must be divisible by k.
    """
    num_latents = pre_NM.shape[-1]
    best_NK = pre_NM.view(-1, k, num_latents // k).argmax(-1)
    return best_NK + torch.arange(0, num_latents, num_latents // k, device=pre_NM.device)


def select_topk_among(pre_NM: Tensor, candidates_C: Tensor, k: int) -> Tensor:
    """(N, k) int64 indices of the k largest pre-activations among the latents `candidates_C`, unsorted; k <= C."""
    return candidates_C[select_topk(pre_NM[:, candidates_C], k)]


def select_batchtopk(pre_NM: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The N * k largest pre-activations of the whole batch (Bussmann et al. 2024, arXiv:2412.06410): k per token on
    average, more where a token needs more.

    Returns:
        tokens (N * k) and latents (N * k), int64, token by token.
    """
    chosen = pre_NM.flatten().topk(pre_NM.shape[0] * k, sorted=False).indices.sort().values
    return chosen // pre_NM.shape[1], chosen % pre_NM.shape[1]


def select_from(pre_NM: Tensor, threshold: Tensor) -> tuple[Tensor, Tensor]:
    """All positive pre-activations that reach `threshold`, a scalar.

    Returns:
        tokens (P) and latents (P), int64, token by token; P is known only once the device has answered.
    """
    tokens_P, latents_P = ((pre_NM >= threshold) & (pre_NM > 0)).nonzero(as_tuple=True)  # sync
    return tokens_P, latents_P


def batch_threshold(largest: Iterable[Tensor], num_active: int) -> Tensor:
    """The value that the `num_active`-th largest pre-activation of a batch has, a scalar.

    Args:
        largest: of each part of the batch, its `num_active` largest pre-activations, or all it has.
    """
    return torch.cat(list(largest)).topk(num_active).values[-1]


def largest(pre_NM: Tensor, number: int) -> Tensor:
    """The `number` largest pre-activations of all tokens together, or all there are, unsorted."""
    return pre_NM.flatten().topk(min(number, pre_NM.numel()), sorted=False).values
