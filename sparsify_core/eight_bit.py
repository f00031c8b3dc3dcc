"""Where 8-bit numbers can be had: bitsandbytes brings them, on CUDA."""

import importlib.util

import torch

from sparsify_core.errors import ConfigError


def is_available(device: torch.device) -> bool:
    """Whether bitsandbytes is installed and `device` is one that it computes on."""
    return device.type == "cuda" and _is_installed()


def require(setting: str, device: torch.device, *, otherwise: str) -> None:
    """Raise ConfigError where 8 bits cannot be had.

    Args:
        setting: what asks for them, as the user wrote it.
        otherwise: what to do without them.
    """
    if device.type != "cuda":
        raise ConfigError(f"{setting} needs CUDA, and this run is on device {device.type}: {otherwise}")
    if not _is_installed():
        raise ConfigError(f"{setting} needs the package bitsandbytes: pip install bitsandbytes, or {otherwise}")


def _is_installed() -> bool:
    return importlib.util.find_spec("bitsandbytes") is not None
