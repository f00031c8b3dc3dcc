"""Latents that write the same direction: they split one feature between them, and waste width."""

import torch
from torch import Tensor
from torch.nn import functional

SAMPLED = 1024
"""Latents that are compared with all: 24,576 latents of width 768 take half a second on two cores, and the share that
is found is off by at most 1.6 points (one standard error)."""
COSINE = 0.9

_BLOCK = 256


@torch.no_grad()
def duplicate_frac(W_dec_ME: Tensor) -> float:
    """Share of the latents whose decoder row has a cosine above `COSINE` with the row of another latent.

    Of many latents `SAMPLED` are looked at, evenly spread; a row of zeros has no direction and is nobody's duplicate.
    """
    unit_ME = functional.normalize(W_dec_ME.float(), dim=1)
    num_latents = len(unit_ME)
    sampled_S = (
        torch.arange(min(SAMPLED, num_latents), device=unit_ME.device) * num_latents // min(SAMPLED, num_latents)
    )
    found = torch.zeros((), dtype=torch.int64, device=unit_ME.device)
    for block_B in torch.split(sampled_S, _BLOCK):
        cosine_BM = unit_ME[block_B] @ unit_ME.T
        cosine_BM[torch.arange(len(block_B), device=block_B.device), block_B] = -1  # itself
        found += (cosine_BM.amax(1) > COSINE).sum()
    return float(found / len(sampled_S))
