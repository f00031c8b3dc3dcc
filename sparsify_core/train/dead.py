"""Which latents count as dead, without making the device wait for the host."""

import torch
from torch import Tensor


class DeadLatents:
    """The latents of one coder that have not fired for too many tokens.

    How many they are travels to the host while the device goes on: ask for them when it has been given other work.
    """

    def __init__(self, is_dead_M: Tensor) -> None:
        self._is_dead_M = is_dead_M
        self._count = is_dead_M.sum()
        self._arrived: torch.cuda.Event | None = None
        if is_dead_M.is_cuda:
            self._count = self._count.to("cpu", non_blocking=True)
            self._arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._arrived.record()
        self._indices_C: Tensor | None = None

    def indices(self) -> Tensor:
        """Their indices in ascending order, int64 (C)."""
        if self._indices_C is None:
            if self._arrived is not None:
                self._arrived.synchronize()  # of what was asked for before: not a wait for the device's latest work
            order_M = self._is_dead_M.logical_not().to(torch.int8).argsort(stable=True)
            self._indices_C = order_M[: int(self._count)]
        return self._indices_C
