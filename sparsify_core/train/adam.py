"""Adam, with its state in 32 bits, or in 8 by bitsandbytes where there is CUDA, as upstream does."""

from typing import Any

import torch

from sparsify_core import eight_bit
from sparsify_core.config import RunConfig


def resolve_bits(config: RunConfig, device: torch.device) -> int:
    """Bits of the state of optimizer adam: 8 or 32. Raises ConfigError when 8 are asked for and cannot be had."""
    if config.adam_bits == "auto":
        return 8 if eight_bit.is_available(device) else 32
    if config.adam_bits == "8":
        eight_bit.require("adam_bits = 8", device, otherwise="set adam_bits to 32")
    return int(config.adam_bits)


def build_adam(groups: list[dict[str, Any]], bits: int) -> torch.optim.Optimizer:
    """Adam with the defaults of torch, over these parameter groups.

    In 8 bits the moments are quantized in blocks; those of parameters with fewer than 4,096 entries are not.
    """
    if bits == 32:
        return torch.optim.Adam(groups, fused=True)
    from bitsandbytes.optim import Adam8bit  # not everywhere, and slow to import

    adam: torch.optim.Optimizer = Adam8bit(groups)
    return adam
