"""Read the training sequences ahead of the training: a thread tokenizes or decodes the next batches meanwhile."""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import numpy.typing as npt

from sparsify_core.data.sequences import Sequences

_AHEAD = 2
"""Batches."""

Ids = npt.NDArray[np.int64]


class ReadAhead:
    """One process's share of the training sequences, in batches of `size`.

    Consecutive batches go round the processes, so N of them see in one step what a single one sees in N batches. Only
    this object's thread may read the sequences while it is open.

    Args:
        end: nothing is read from this training sequence on.
    """

    def __init__(self, sequences: Sequences, *, size: int, rank: int, world_size: int, end: int) -> None:
        self._sequences = sequences
        self._size = size
        self._rank = rank
        self._stride = size * world_size
        self._end = end
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="read-ahead")
        self._under_way: dict[int, Future[Ids]] = {}

    def batches(self, first: int, last: int) -> Iterator[tuple[int, Ids]]:
        """The batches of the training sequences first..last: the number of each one's first, and its ids.

        Raises DataError when they cannot be read.
        """
        for start in range(first + self._rank * self._size, last, self._stride):
            yield start, self._take(start)

    def close(self) -> None:
        """Stop reading; waits for what is being read."""
        self._thread.shutdown(cancel_futures=True)

    def _take(self, start: int) -> Ids:
        soon = range(start, self._end, self._stride)[: 1 + _AHEAD]
        for number in self._under_way.keys() - set(soon):
            self._under_way.pop(number).cancel()
        for number in soon:
            if number not in self._under_way:
                rows = self._sequences.train[number : number + self._size]
                self._under_way[number] = self._thread.submit(self._sequences.rows.take, rows)
        return self._under_way.pop(start).result()
