"""What activations depend on: the model's weights and the tokens that went in. Names of either do not matter."""

import hashlib
import json
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

DIGEST_BYTES = 16

_SAMPLES = 4096
"""Values looked at per tensor: no training leaves them alone, and a large model is not read as a whole."""

_NAMES = {"_name_or_path", "architectures", "transformers_version"}
"""Entries of a model's configuration that tell where it comes from, not what it computes."""


def model_sha256(model: nn.Module) -> str:
    """Identity of a base model: sha256 over its class, its configuration and, of every parameter, name, shape, dtype
    and up to 4,096 evenly spaced values, bit for bit. The same on every device.
    """
    config: Any = model.config
    known = {name: value for name, value in config.to_dict().items() if name not in _NAMES}
    sha256 = hashlib.sha256(json.dumps([type(model).__name__, known], sort_keys=True, default=str).encode())
    for name, parameter in model.named_parameters():
        sha256.update(f"{name} {tuple(parameter.shape)} {parameter.dtype}".encode())
        values = parameter.detach().flatten()
        samples = values[:: max(1, -(-len(values) // _SAMPLES))].contiguous().view(torch.uint8)
        sha256.update(samples.cpu().numpy().tobytes())
    return sha256.hexdigest()


def sequence_digests(tokens: npt.NDArray[np.int64]) -> list[bytes]:
    """The 16 bytes that stand for each of the sequences (n, L)."""
    return [hashlib.blake2b(row, digest_size=DIGEST_BYTES).digest() for row in tokens.astype("<i4", order="C")]
