"""Which latents of a token stay active. Indices only: values and gradients come from `kernels.gather_latents`."""

from torch import Tensor


def select_topk(pre_NM: Tensor, k: int) -> Tensor:
    """(N, k) int64 indices of the k largest pre-activations, unsorted.

    The ReLU is not applied first: it keeps the order, and a latent below zero gets the value 0 afterwards anyway.
    """
    return pre_NM.topk(k, dim=-1, sorted=False).indices
