"""What a training process sets up for itself before anything else."""

import ctypes
import os
import resource
import signal
import sys

import torch

_PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """Have the kernel kill this process when the one that started it dies (Linux; elsewhere nothing happens).

    Without it a rank outlives a killed torchrun and keeps its GPU.
    """
    if not sys.platform.startswith("linux"):
        return
    parent = os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    # The parent may have died before the request was made; then nothing would ever kill us.
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


def use_all_cores(local_world_size: int) -> None:
    """Share the machine's cores between the ranks; torchrun would leave one core to each of them."""
    torch.set_num_threads(max(1, available_cores() // local_world_size))


def available_cores() -> int:
    """Cores that this process may run on."""
    if sys.platform.startswith("linux"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    return cores


def peak_memory_bytes(device: torch.device) -> int:
    """The most that this process has held at once: of the device's memory, or on a CPU of the machine's."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
