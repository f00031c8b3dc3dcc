"""The processes of a run and what they tell each other."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from sparsify_core.capture.device import choose_device
from sparsify_core.config import RunConfig
from sparsify_core.errors import SparsifyError
from sparsify_core.timing import Span
from sparsify_core.train.reduction import Reduction

T = TypeVar("T")


class Group:
    """This process's place among the run's processes. Without torchrun a group of one, in which nothing is sent."""

    def __init__(self, config: RunConfig) -> None:
        self.rank = int(os.environ.get("RANK", "0"))
        self.world_size = int(os.environ.get("WORLD_SIZE", "1"))
        self.local_rank = int(os.environ.get("LOCAL_RANK", "0"))
        self.local_world_size = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        self.device = choose_device(config.device, self.local_rank)
        self._control: dist.ProcessGroup | None = None
        self._is_own = False
        self._flag: tuple[Tensor, dist.Work] | None = None

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    @property
    def is_launched(self) -> bool:
        """Whether torchrun started this process, be it the only one."""
        return "TORCHELASTIC_RUN_ID" in os.environ

    def join(self) -> None:
        """Meet the other processes. Separate from the constructor because it waits for them."""
        if self.world_size == 1:
            return
        self._is_own = not dist.is_initialized()  # a program that uses the library may have met already
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)
            if self._is_own:
                dist.init_process_group("nccl", device_id=self.device)
            # Stop flags travel on their own group: reading one back must not wait for the GPU's queue.
            self._control = dist.new_group(backend="gloo")
        else:
            if self._is_own:
                dist.init_process_group("gloo")
            self._control = dist.group.WORLD

    def leave(self) -> None:
        if self._is_own and dist.is_initialized():
            with suppress(RuntimeError):  # another process may be gone already
                dist.destroy_process_group()

    def start_adding_up(self, tensors: Iterable[Tensor]) -> Reduction:
        """Sum each tensor over all processes, in place, while the device goes on; see Reduction."""
        return Reduction(list(tensors) if self.world_size > 1 else [])

    def add_up(self, tensors: Iterable[Tensor]) -> None:
        """Sum each tensor over all processes, in place."""
        self.start_adding_up(tensors).wait()

    def any(self, flag: bool) -> bool:
        """True on every process when it is true on one of them."""
        if self.world_size == 1:
            return flag
        shared = torch.tensor([int(flag)])
        dist.all_reduce(shared, op=dist.ReduceOp.MAX, group=self._control)
        return bool(shared.item())

    def any_before(self, flag: bool) -> bool:
        """True on every process when `flag` was true on one of them at the call before; alone: at this one.

        One call late, so that nobody waits for the slowest process in every step.
        """
        if self.world_size == 1:
            return flag
        before, shared = self._flag, torch.tensor([int(flag)])
        self._flag = (shared, dist.all_reduce(shared, op=dist.ReduceOp.MAX, group=self._control, async_op=True))
        if before is None:
            return False
        before[1].wait()
        return bool(before[0].item())

    def gather(self, value: T) -> list[T]:
        """The values of all processes by rank, on every process. For small things: they travel pickled."""
        if self.world_size == 1:
            return [value]
        values: list[Any] = [None] * self.world_size
        dist.all_gather_object(values, value, group=self._control)
        return values

    @Span("communication")
    def gather_count(self, count: int) -> list[int]:
        """The counts of all processes by rank, without a look at the GPU."""
        if self.world_size == 1:
            return [count]
        counts = [torch.zeros(1, dtype=torch.int64) for _ in range(self.world_size)]
        dist.all_gather(counts, torch.tensor([count]), group=self._control)
        return [int(shared) for shared in counts]

    @contextmanager
    def failing_together(self) -> Iterator[None]:
        """What fails inside on one process is raised on all of them, also as a place where they meet.

        Rank 0 writes the run's events; without this it would see another one's full disk as a broken connection.
        """
        failure: Exception | None = None
        try:
            yield
        except (SparsifyError, OSError) as error:
            failure = error
        for other in self.gather(failure):
            if other is not None:
                raise failure or other

    def wait(self) -> None:
        """Until all processes are here."""
        if self.world_size > 1:
            dist.barrier(group=self._control)
