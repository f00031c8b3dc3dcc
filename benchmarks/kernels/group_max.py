"""Group maxima in a pass of their own, against PyTorch."""

from collections.abc import Iterator
from functools import partial

from benchmarks.kernels.case import Case, Inputs
from sparsify_core.kernels import reference
from sparsify_core.kernels.group_max import GROUP, group_max


def cases(inputs: Inputs) -> Iterator[Case]:
    yield Case(
        "group maxima",
        [partial(group_max, pre_NM) for pre_NM in inputs.pre_NM],
        "relu, amax",
        [partial(reference.group_max, pre_NM, GROUP) for pre_NM in inputs.pre_NM],
        moved_bytes=2 * inputs.pre_NM[0].numel() * (1 + 1 / GROUP),
    )
