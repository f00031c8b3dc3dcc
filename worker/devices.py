"""What this host can train on, and how busy it is."""

import contextlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pynvml


class Gpus:
    """The NVIDIA GPUs that this worker may use: found once, measured at every heartbeat."""

    def __init__(self) -> None:
        self.found: list[dict[str, Any]] = []
        """One `{index, name, memory_bytes, uuid}` per GPU, in the driver's order; empty without any."""
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        try:
            pynvml.nvmlInit()  # for good: a heartbeat then costs a few hundred microseconds
            found = [_describe(index) for index in range(pynvml.nvmlDeviceGetCount())]
        except pynvml.NVMLError:
            return
        self.found = [device for device in found if visible is None or is_visible(device, visible)]

    def measure(self) -> list[dict[str, Any]]:
        """`found`, each with `{utilization_frac, used_bytes, num_processes, temperature_c, power_w}` as far as the
        driver tells.
        """
        return [device | _load(device["index"]) for device in self.found]


def _describe(index: int) -> dict[str, Any]:
    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    return {
        "index": index,
        "name": pynvml.nvmlDeviceGetName(handle),
        "memory_bytes": int(pynvml.nvmlDeviceGetMemoryInfo(handle).total),
        "uuid": pynvml.nvmlDeviceGetUUID(handle),
    }


def _load(index: int) -> dict[str, Any]:
    questions: dict[str, Callable[[Any], float]] = {
        "utilization_frac": lambda handle: pynvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100,
        "used_bytes": lambda handle: int(pynvml.nvmlDeviceGetMemoryInfo(handle).used),
        "num_processes": lambda handle: len(pynvml.nvmlDeviceGetComputeRunningProcesses(handle)),
        "temperature_c": lambda handle: int(pynvml.nvmlDeviceGetTemperature(handle, pynvml.NVML_TEMPERATURE_GPU)),
        "power_w": lambda handle: pynvml.nvmlDeviceGetPowerUsage(handle) / 1000,
    }
    answers: dict[str, float] = {}
    for name, ask in questions.items():
        with contextlib.suppress(pynvml.NVMLError):  # a slice of a GPU has no utilization, a lost GPU has nothing
            answers[name] = ask(pynvml.nvmlDeviceGetHandleByIndex(index))
    return answers


def measure_host(data_dir: Path) -> dict[str, float]:
    """The machine's load: share of all cores since the last call, memory, and the disk that holds `data_dir`."""
    memory, disk = psutil.virtual_memory(), shutil.disk_usage(data_dir)
    return {
        "cpu_frac": psutil.cpu_percent() / 100,
        "memory_used_bytes": memory.total - memory.available,
        "memory_bytes": memory.total,
        "disk_free_bytes": disk.free,
        "disk_bytes": disk.total,
    }


def is_visible(device: dict[str, Any], visible: str) -> bool:
    """Whether `CUDA_VISIBLE_DEVICES=visible` shows a GPU: by its index or by the beginning of its UUID."""
    names = [name.strip() for name in visible.split(",") if name.strip()]
    return any(
        name == str(device["index"]) or (not name.isdecimal() and device["uuid"].startswith(name)) for name in names
    )


def num_cores() -> int:
    """Cores that processes of this worker may use."""
    return len(psutil.Process().cpu_affinity()) if hasattr(psutil.Process, "cpu_affinity") else os.cpu_count() or 1
