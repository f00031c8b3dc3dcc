"""Checks of the machine: its GPUs, and whether the processes of a run reach each other. PyTorch runs in processes of
its own, as it does in training.
"""

import json
import subprocess
import sys
from functools import lru_cache
from pathlib import Path
from typing import Any

from server.doctor.finding import Finding, fail, ok, warn
from server.numbers import size
from server.settings import Settings

_TIMEOUT_S = 120
_DRIVER = Path("/proc/driver/nvidia/version")


class ProbeError(Exception):
    """A probe did not end well; the message is the last line that it wrote."""


def devices(_settings: Settings) -> Finding:
    """Does PyTorch use the GPUs of this machine?"""
    try:
        found = _devices()
    except ProbeError as error:
        return fail(f"PyTorch does not work: {error}", "run `make setup`")
    broken = [f"{device['name']}: {device['error']}" for device in found["devices"] if device["error"]]
    if broken:
        return fail("; ".join(broken), "look at nvidia-smi: another program may hold it, or its driver is in trouble")
    if found["devices"]:
        names = ", ".join(f"{device['name']} ({size(device['memory_bytes'])})" for device in found["devices"])
        return ok(f"{names}; PyTorch {found['torch']}")
    if _DRIVER.exists():
        build = f"for CUDA {found['cuda']}" if found["cuda"] else "for CPUs"
        return warn(
            f"this machine has an NVIDIA driver, but PyTorch {found['torch']}, a build {build}, sees no GPU",
            "run `make setup` for the CUDA build, or look at CUDA_VISIBLE_DEVICES and the driver's version",
        )
    return ok(f"no GPU, training runs on the CPU; PyTorch {found['torch']}")


def collectives(_settings: Settings) -> Finding:
    """Does a sum over processes come out right: by NCCL between the GPUs, else by gloo between two processes?"""
    try:
        count = len(_devices()["devices"])
        launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(count or 2))
        found = probe(*launcher, "-m", "sparsify_core.probe", "collectives")
    except ProbeError as error:
        return fail(
            f"processes do not reach each other: {error}",
            "one process per run works; for more look at NCCL_DEBUG=INFO, /dev/shm (--shm-size) and the firewall",
        )
    name = f"NCCL {found['version']}" if found["backend"] == "nccl" else "gloo (NCCL needs GPUs)"
    return ok(f"{name} works between {found['processes']} process{'' if found['processes'] == 1 else 'es'}")


@lru_cache(maxsize=1)
def _devices() -> dict[str, Any]:
    return probe("-m", "sparsify_core.probe", "devices")


def probe(*arguments: str) -> dict[str, Any]:
    """The JSON that a probe prints. Raises ProbeError."""
    try:
        done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=_TIMEOUT_S)
    except subprocess.TimeoutExpired as error:
        raise ProbeError(f"no answer within {_TIMEOUT_S} s") from error
    if done.returncode != 0:
        raise ProbeError(_reason(done.stderr))
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def _reason(output: str) -> str:
    """The line of an exception, of the rank that failed first when torchrun adds its own report."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line.partition("]:")[2] or line for line in lines if "Error:" in line]
    return (errors or lines or ["it said nothing"])[0].strip()
