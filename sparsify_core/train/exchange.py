"""Send the activations of a hookpoint to the one process that trains its coders (`distribute_modules`).

Legend: N rows (tokens that count) of all processes, D width of a module's input, E of its output.
"""

from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from sparsify_core.capture.forward import ActivationSource, Consumer
from sparsify_core.timing import Span
from sparsify_core.train.distributed import Group


class Exchange:
    """Every process runs the model on its own batch; each hookpoint's rows meet at its owner, ordered by rank, as they
    stand in the one big batch of a single process.

    Args:
        owners: hookpoint -> rank; the same order on all processes.
    """

    def __init__(self, group: Group, owners: Mapping[str, int]) -> None:
        self._group = group
        self._owners = owners
        self._tags = {hookpoint: 2 * number for number, hookpoint in enumerate(owners)}

    def run(self, source: ActivationSource, input_ids: Tensor, kept: Tensor | None, consumer: Consumer) -> None:
        """One forward on this process's `input_ids` (B, L), of which the rows `kept` count (None: all).

        All processes call it together. Rows leave as soon as a hookpoint's module is done and travel, in the model's
        own format, while the model goes on. Only when all of a batch are there does the consumer see the hookpoints
        that this process owns, one after the other: so all owners train at the same time.
        """
        counts = self._group.gather_count(input_ids.numel() if kept is None else len(kept))
        here: dict[str, tuple[Tensor, Tensor]] = {}
        under_way: list[Any] = []

        def pass_on(hookpoint: str, x_ND: Tensor, y_NE: Tensor) -> None:
            tag = self._tags[hookpoint]
            all_y_NE = self._to_owner(hookpoint, _rows(y_NE, kept), counts, under_way, tag=tag)
            all_x_ND = all_y_NE
            if x_ND is not y_NE:
                all_x_ND = self._to_owner(hookpoint, _rows(x_ND, kept), counts, under_way, tag=tag + 1)
            if self._owners[hookpoint] == self._group.rank:
                here[hookpoint] = (all_x_ND, all_y_NE)

        source.run(input_ids, pass_on, keeps_dtype=True)
        with Span("communication"):
            for work in under_way:
                work.wait()
        if sum(counts):
            _consume(here, consumer)

    @Span("communication")
    def _to_owner(
        self, hookpoint: str, rows_ND: Tensor, counts: list[int], under_way: list[Any], *, tag: int
    ) -> Tensor:
        """Start sending this process's rows, or receiving everybody's. Returns the owner's buffer (N, D), which is
        filled once `under_way` is done; on the other processes the rows that leave.

        The transfers of one hookpoint are one batch, issued in the model's order on all processes: nobody can wait
        for somebody who waits for him.
        """
        owner, rank = self._owners[hookpoint], self._group.rank
        if owner != rank:
            transfers = [dist.P2POp(dist.isend, rows_ND, owner, tag=tag)] if len(rows_ND) else []
            result = rows_ND
        else:
            result = rows_ND.new_empty(sum(counts), rows_ND.shape[1])
            parts = torch.split(result, counts)
            parts[rank].copy_(rows_ND)
            transfers = [
                dist.P2POp(dist.irecv, part, other, tag=tag)
                for other, part in enumerate(parts)
                if other != rank and len(part)
            ]
        if transfers:
            under_way.extend(dist.batch_isend_irecv(transfers))
        return result


def _rows(values_ND: Tensor, kept: Tensor | None) -> Tensor:
    """A copy of the rows that count: later modules may write into the tensor while it is on its way."""
    return values_ND.clone(memory_format=torch.contiguous_format) if kept is None else values_ND[kept]


def _consume(here: dict[str, tuple[Tensor, Tensor]], consumer: Consumer) -> None:
    """Hand over float32 rows, hookpoint by hookpoint, and let go of each as soon as it was used."""
    for hookpoint in list(here):
        x_ND, y_NE = here.pop(hookpoint)
        same = x_ND is y_NE
        y_NE = y_NE.float()
        consumer(hookpoint, y_NE if same else x_ND.float(), y_NE)
