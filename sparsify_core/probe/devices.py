"""Does every GPU that PyTorch sees multiply?"""

from typing import Any

import torch


def probe() -> dict[str, Any]:
    """`{torch, cuda, devices: [{name, memory_bytes, error}]}`; `cuda` is the version that the build is for, or null."""
    devices = []
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        devices.append({"name": properties.name, "memory_bytes": properties.total_memory, "error": _error(index)})
    return {"torch": torch.__version__, "cuda": torch.version.cuda, "devices": devices}


def _error(index: int) -> str:
    try:
        ones = torch.ones(64, 64, device=f"cuda:{index}")
        return "" if (ones @ ones).sum().item() == 64**3 else "it multiplies wrongly"
    except RuntimeError as error:  # CUDA's own errors, memory among them
        return str(error).splitlines()[0]
