"""Sums over all processes that are made while the device goes on computing."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from sparsify_core.timing import Span

LARGE_NUMEL = 2**18
"""Tensors from here on (1 MB of float32) travel in place: to copy them would cost more than another message."""


class _Message(NamedTuple):
    """`buffer` is on its way; once `work` is done its parts belong into `tensors` (none: it is the tensor itself)."""

    buffer: Tensor
    tensors: Sequence[Tensor]
    work: dist.Work


class Reduction:
    """Tensors on their way to being summed over all processes, in place; hands off until `wait`.

    All processes start the same reductions in the same order, each with tensors of the same shapes. Those below
    LARGE_NUMEL travel as one message of float64, which holds every int32 and float32 as it is.
    """

    @Span("communication")
    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self._messages: list[_Message] = []
        small = [tensor for tensor in tensors if tensor.numel() < LARGE_NUMEL]
        if small:
            self._send(torch.cat([tensor.flatten().double() for tensor in small]), small)
        for tensor in tensors:
            if tensor.numel() >= LARGE_NUMEL:
                buffer = tensor.contiguous()
                self._send(buffer, [] if buffer is tensor else [tensor])

    def _send(self, buffer: Tensor, tensors: Sequence[Tensor]) -> None:
        work = dist.all_reduce(buffer, async_op=True)
        self._messages.append(_Message(buffer, tensors, work))

    @Span("communication")
    def wait(self) -> None:
        """Have what the device does from here on see the sums. On CUDA the host does not wait for them."""
        for buffer, tensors, work in self._messages:
            work.wait()
            if tensors:
                parts = torch.split(buffer.flatten(), [tensor.numel() for tensor in tensors])
                for tensor, part in zip(tensors, parts, strict=True):
                    tensor.copy_(part.view_as(tensor))
        self._messages = []
