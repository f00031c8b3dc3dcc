"""Group maxima in a pass of their own, against PyTorch."""

from collections.abc import Iterator
from functools import partial

from benchmarks.kernels.case import Case, Inputs
from sparsify_core.kernels import reference
from sparsify_core.kernels.dispatch import GROUP
from sparsify_core.kernels.maxima import group_maxima


def cases(inputs: Inputs) -> Iterator[Case]:
    yield Case(
        "group maxima",
        [partial(group_maxima, pre_NM) for pre_NM in inputs.pre_NM],
        "relu, amax",
        [partial(reference.group_maxima, pre_NM, GROUP) for pre_NM in inputs.pre_NM],
        moved_bytes=2 * inputs.pre_NM[0].numel() * (1 + 1 / GROUP),
    )
