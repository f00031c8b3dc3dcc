"""Sums over processes: right, in place, and the same to the bit everywhere."""

from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp

from ranks import WORLD_SIZE, shares, take_part
from runs import free_port
from sparsify_core.config import RunConfig
from sparsify_core.train.distributed import Group


@pytest.mark.integration
def test_two_processes_get_the_same_sums_and_flags(tmp_path: Path) -> None:
    mp.spawn(take_part, args=(tmp_path, free_port()), nprocs=WORLD_SIZE)
    parts = [shares(rank) for rank in range(WORLD_SIZE)]
    for rank in range(WORLD_SIZE):
        sums, flags = torch.load(tmp_path / f"{rank}.pt")
        for i, tensors in enumerate(sums):
            for j, tensor in enumerate(tensors):
                exact = sum(part[i][j].double() for part in parts)
                assert torch.equal(tensor, exact.to(tensor.dtype))
        assert flags == [False, False, True, False, True]  # one call late


def test_alone_nothing_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    group = Group(RunConfig(model="m", dataset="d", device="cpu"))
    group.join()
    tensors = shares(0)[0]
    group.start_adding_up(tensors).wait()
    assert all(torch.equal(tensor, same) for tensor, same in zip(tensors, shares(0)[0], strict=True))
    assert [group.any_before(flag) for flag in (False, True, False)] == [False, True, False]
