"""What this host can train on, and which part of it a run gets.

GPUs are leased whole. A host without GPUs trains one run at a time.
"""

import os
from typing import Any

import psutil
import pynvml

from server.db.tables import DeviceKind, Run


def inventory() -> list[dict[str, Any]]:
    """One `{index, name, memory_bytes}` per usable NVIDIA GPU, in the driver's order; empty without any."""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return []
    try:
        found = [_describe(index) for index in range(pynvml.nvmlDeviceGetCount())]
    except pynvml.NVMLError:
        return []
    finally:
        pynvml.nvmlShutdown()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return [
        {key: value for key, value in device.items() if key != "uuid"}
        for device in found
        if visible is None or is_visible(device, visible)
    ]


def is_visible(device: dict[str, Any], visible: str) -> bool:
    """Whether `CUDA_VISIBLE_DEVICES=visible` shows a GPU: by its index or by the beginning of its UUID."""
    names = [name.strip() for name in visible.split(",") if name.strip()]
    return any(
        name == str(device["index"]) or (not name.isdecimal() and device["uuid"].startswith(name)) for name in names
    )


def _describe(index: int) -> dict[str, Any]:
    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    return {
        "index": index,
        "name": pynvml.nvmlDeviceGetName(handle),
        "memory_bytes": int(pynvml.nvmlDeviceGetMemoryInfo(handle).total),
        "uuid": pynvml.nvmlDeviceGetUUID(handle),
    }


def num_cores() -> int:
    """Cores that processes of this worker may use."""
    return len(psutil.Process().cpu_affinity()) if hasattr(psutil.Process, "cpu_affinity") else os.cpu_count() or 1


def place(run: Run, gpus: list[dict[str, Any]], taken: set[tuple[str, int]]) -> list[int] | None:
    """GPU indices for a run beside the devices that are `taken`; `[]` for the CPU, None for no room."""
    wants_cpu = not gpus or run.config.get("device") == "cpu"
    if wants_cpu:
        return None if (DeviceKind.CPU, 0) in taken else []
    free = [gpu["index"] for gpu in gpus if (DeviceKind.GPU, gpu["index"]) not in taken]
    return free[: run.num_processes] if len(free) >= run.num_processes else None


def obstacle(run: Run, gpus: list[dict[str, Any]]) -> str:
    """Why a run waits, for people."""
    if not gpus or run.config.get("device") == "cpu":
        return "waits for the run before it"
    if run.num_processes > len(gpus):
        return f"needs {run.num_processes} GPUs, the worker has {len(gpus)}"
    return f"waits for {run.num_processes} free GPU{'s' if run.num_processes > 1 else ''}"
