"""Which device a process computes on."""

import torch

from sparsify_core.errors import ConfigError


def choose_device(wish: str, local_rank: int = 0) -> torch.device:
    """The device for `wish` (auto, cpu or cuda) and the process's number on this machine.

    Raises ConfigError when there is none.
    """
    if wish == "cpu" or (wish == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise ConfigError("device = cuda, but torch sees no CUDA device: use device auto or cpu")
    if local_rank >= torch.cuda.device_count():
        raise ConfigError(
            f"process {local_rank} has no GPU: this machine has {torch.cuda.device_count()}, start at most that many"
        )
    return torch.device("cuda", local_rank)
