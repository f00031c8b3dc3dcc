"""Send the activations of a hookpoint to the one process that trains its coders (`distribute_modules`).

Legend: N rows (tokens that count) of all processes, D width of a module's input, E of its output.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from sparsify_core.capture.forward import ActivationSource, Consumer
from sparsify_core.timing import Span
from sparsify_core.train.distributed import Group


class _Arriving(NamedTuple):
    """Of one hookpoint and all processes, at its owner: there once `transfers` are done."""

    x_ND: Tensor
    y_NE: Tensor
    transfers: list[dist.Work]


class Exchange:
    """Every process runs the model on its own batch; each hookpoint's rows meet at its owner, ordered by rank, as they
    stand in the one big batch of a single process.

    Args:
        owners: hookpoint -> rank; the same order on all processes.
        rows_vary: whether the numbers of rows that count may differ between the processes' batches.
        keeps_dtype: hand rows over in the model's own format, in which they always travel; else in float32.
    """

    def __init__(self, group: Group, owners: Mapping[str, int], *, rows_vary: bool, keeps_dtype: bool) -> None:
        self._group = group
        self._owners = owners
        self._rows_vary = rows_vary
        self._keeps_dtype = keeps_dtype
        self._tags = {hookpoint: 2 * number for number, hookpoint in enumerate(owners)}

    def run(self, source: ActivationSource, input_ids: Tensor, kept: Tensor | None, consumer: Consumer) -> None:
        """One forward on this process's `input_ids` (B, L), of which the rows `kept` count (None: all).

        All processes call it together. Rows leave as soon as a hookpoint's module is done and travel, in the model's
        own format, while the model goes on. Only behind the whole forward does the consumer see the hookpoints that
        this process owns, one after the other: so all owners train at the same time.
        """
        counts = self._counts(input_ids.numel() if kept is None else len(kept))
        here: dict[str, _Arriving] = {}
        leaving: list[dist.Work] = []

        def pass_on(hookpoint: str, x_ND: Tensor, y_NE: Tensor) -> None:
            is_here = self._owners[hookpoint] == self._group.rank
            transfers: list[dist.Work] = [] if is_here else leaving
            tag = self._tags[hookpoint]
            all_y_NE = self._to_owner(hookpoint, _rows(y_NE, kept), counts, transfers, tag=tag)
            all_x_ND = all_y_NE
            if x_ND is not y_NE:
                all_x_ND = self._to_owner(hookpoint, _rows(x_ND, kept), counts, transfers, tag=tag + 1)
            if is_here:
                here[hookpoint] = _Arriving(all_x_ND, all_y_NE, transfers)

        source.run(input_ids, pass_on, keeps_dtype=True)
        if sum(counts):
            self._consume(here, consumer)
        _wait(leaving)

    def _counts(self, own: int) -> list[int]:
        """Rows that count, by rank."""
        return self._group.gather_count(own) if self._rows_vary else [own] * self._group.world_size

    @Span("communication")
    def _to_owner(
        self, hookpoint: str, rows_ND: Tensor, counts: list[int], transfers: list[dist.Work], *, tag: int
    ) -> Tensor:
        """Start sending this process's rows, or receiving everybody's. Returns the owner's buffer (N, D), which is
        filled once `transfers` are done; on the other processes the rows that leave.

        The transfers of one hookpoint are one batch, issued in the model's order on all processes: nobody can wait
        for somebody who waits for him.
        """
        owner, rank = self._owners[hookpoint], self._group.rank
        if owner != rank:
            messages = [dist.P2POp(dist.isend, rows_ND, owner, tag=tag)] if len(rows_ND) else []
            result = rows_ND
        else:
            result = rows_ND.new_empty(sum(counts), rows_ND.shape[1])
            parts = torch.split(result, counts)
            parts[rank].copy_(rows_ND)
            messages = [
                dist.P2POp(dist.irecv, part, other, tag=tag)
                for other, part in enumerate(parts)
                if other != rank and len(part)
            ]
        if messages:
            transfers.extend(dist.batch_isend_irecv(messages))
        return result

    def _consume(self, here: dict[str, _Arriving], consumer: Consumer) -> None:
        """Hand rows over, hookpoint by hookpoint, each once it is there, and let go of it as soon as it was used."""
        for hookpoint in list(here):
            x_ND, y_NE, transfers = here.pop(hookpoint)
            _wait(transfers)
            same = x_ND is y_NE
            if not self._keeps_dtype:
                y_NE = y_NE.float()
                x_ND = y_NE if same else x_ND.float()
            consumer(hookpoint, x_ND, y_NE)


def _rows(values_ND: Tensor, kept: Tensor | None) -> Tensor:
    """A copy of the rows that count: later modules may write into the tensor while it is on its way."""
    return values_ND.clone(memory_format=torch.contiguous_format) if kept is None else values_ND[kept]


@Span("communication")
def _wait(transfers: list[dist.Work]) -> None:
    for work in transfers:
        work.wait()
