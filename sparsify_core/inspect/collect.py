"""Gather, in one pass over the held-out text, how often each latent fires and where it fires most."""

import torch
from torch import Tensor

from sparsify_core.model.coder import Latents

NUM_SNIPPETS = 8


class LatentStats:
    """Statistics of M latents. Memory is O(M * NUM_SNIPPETS), whatever the number of tokens.

    Args:
        tokens_per_sequence: at most one snippet is kept per sequence, or one passage would fill the list.
    """

    def __init__(self, num_latents: int, *, tokens_per_sequence: int, device: torch.device) -> None:
        self._tokens_per_sequence = tokens_per_sequence
        self.firing_count_M = torch.zeros(num_latents, dtype=torch.int64, device=device)
        self._values_MT = torch.zeros(num_latents, NUM_SNIPPETS, device=device)
        self._positions_MT = torch.full((num_latents, NUM_SNIPPETS), -1, dtype=torch.int32, device=device)

    def add(self, active: Latents, positions_N: Tensor) -> None:
        """Add tokens; a sequence must not be spread over several calls.

        Args:
            positions_N: int64, flat positions of the tokens in the held-out text.
        """
        fires = active.acts > 0
        latents, values = active.indices[fires], active.acts[fires].float()
        if active.tokens_P is None:
            positions = positions_N[:, None].expand_as(active.indices)[fires]
        else:
            positions = positions_N[active.tokens_P[fires]]
        self.firing_count_M += torch.bincount(latents, minlength=len(self.firing_count_M))

        sequences = positions // self._tokens_per_sequence
        best = _first_per_key(latents * (int(positions_N.max()) // self._tokens_per_sequence + 1) + sequences, values)
        self._merge(latents[best], values[best], positions[best])

    def _merge(self, latents: Tensor, values: Tensor, positions: Tensor) -> None:
        """Fold candidates, sorted by nothing, into the tables."""
        order = _by_key_then_value(latents, values)
        latents, values, positions = latents[order], values[order], positions[order]
        counts = torch.bincount(latents, minlength=len(self.firing_count_M))
        rank = torch.arange(len(latents), device=latents.device) - (counts.cumsum(0) - counts)[latents]
        keep = rank < NUM_SNIPPETS
        new_values_MT = torch.zeros_like(self._values_MT)
        new_positions_MT = torch.full_like(self._positions_MT, -1)
        new_values_MT[latents[keep], rank[keep]] = values[keep]
        new_positions_MT[latents[keep], rank[keep]] = positions[keep].int()

        both_values = torch.cat([self._values_MT, new_values_MT], dim=1)
        both_positions = torch.cat([self._positions_MT, new_positions_MT], dim=1)
        self._values_MT, chosen = both_values.topk(NUM_SNIPPETS, dim=1)
        self._positions_MT = both_positions.gather(1, chosen)

    def tensors(self, decoder_norm_M: Tensor) -> dict[str, Tensor]:
        """The content of inspect.safetensors, on the CPU."""
        tensors = {
            "firing_count": self.firing_count_M,
            "max_activation": self._values_MT[:, 0],
            "top_values": self._values_MT,
            "top_positions": self._positions_MT,
            "decoder_norm": decoder_norm_M.float(),
        }
        return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def _by_key_then_value(keys: Tensor, values: Tensor) -> Tensor:
    """Order by ascending key, within a key by descending value."""
    by_value = values.argsort(descending=True, stable=True)
    return by_value[keys[by_value].argsort(stable=True)]


def _first_per_key(keys: Tensor, values: Tensor) -> Tensor:
    """Indices of the largest value of each key."""
    order = _by_key_then_value(keys, values)
    sorted_keys = keys[order]
    is_first = torch.ones_like(sorted_keys, dtype=torch.bool)
    is_first[1:] = sorted_keys[1:] != sorted_keys[:-1]
    return order[is_first]
