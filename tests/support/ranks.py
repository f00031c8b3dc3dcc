"""What a process of tests/core/test_reduction.py does."""

import os
from pathlib import Path

import torch
from torch import Tensor

from sparsify_core.config import RunConfig
from sparsify_core.train.distributed import Group
from sparsify_core.train.reduction import LARGE_NUMEL

WORLD_SIZE = 2
UP_ON = [None, 1, None, 0, None]
"""The rank whose flag is up at each call."""


def shares(rank: int) -> list[list[Tensor]]:
    """What `rank` has of two reductions: large and small, of all dtypes that a step sums, one not contiguous."""
    generator = torch.Generator().manual_seed(rank)
    side = int(LARGE_NUMEL**0.5) + 1

    def normal(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=dtype) * 1e3

    counts = torch.randint(2**30 - 100, 2**30, (77,), generator=generator, dtype=torch.int32)
    first = [normal(side, side), normal(5), normal((), dtype=torch.float64), counts, normal(side, side + 1).T]
    return [first, [normal(3, 4), normal(2 * side, side)]]


def take_part(rank: int, folder: Path, port: int) -> None:
    """Start both reductions and share flags before waiting; save what came of it."""
    own = {"RANK": rank, "WORLD_SIZE": WORLD_SIZE, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ |= {name: str(value) for name, value in own.items()}
    torch.set_num_threads(1)
    group = Group(RunConfig(model="m", dataset="d", device="cpu"))
    group.join()
    sums = shares(rank)
    under_way = [group.start_adding_up(tensors) for tensors in sums]
    flags = [group.any_before(up == rank) for up in UP_ON]
    for reduction in under_way:
        reduction.wait()
    torch.save((sums, flags), folder / f"{rank}.pt")
    group.wait()
    group.leave()
