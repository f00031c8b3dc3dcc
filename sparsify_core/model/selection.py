"""Which latents of a token stay active. Indices only: values and gradients come from `kernels.gather_latents`."""

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
