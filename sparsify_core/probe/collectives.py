"""Do the processes of a run reach each other? Run it under torchrun, one process per GPU, or two on a CPU."""

import os
from typing import Any

import torch
import torch.distributed as dist


def probe() -> dict[str, Any]:
    """`{backend, processes, version}` on rank 0 once a sum over all processes is right; raises RuntimeError if not."""
    rank, local_rank = int(os.environ["RANK"]), int(os.environ["LOCAL_RANK"])
    has_gpus = torch.cuda.is_available()
    device = torch.device("cuda", local_rank) if has_gpus else torch.device("cpu")
    backend = "nccl" if has_gpus else "gloo"
    dist.init_process_group(backend, device_id=device if has_gpus else None)
    try:
        total = torch.full((1 << 16,), float(rank + 1), device=device)
        dist.all_reduce(total)
        size = dist.get_world_size()
        if not bool((total == size * (size + 1) / 2).all()):
            raise RuntimeError(f"the sum over {size} processes is wrong: {backend} does not work here")
    finally:
        dist.destroy_process_group()
    version = ".".join(str(part) for part in torch.cuda.nccl.version()) if has_gpus else ""  # type: ignore[no-untyped-call]
    return {"backend": backend, "processes": size, "version": version} if rank == 0 else {}
