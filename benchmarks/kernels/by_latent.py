"""Entries sorted by latent with the table of segments, against a stable sort and the latents' starts alone."""

from collections.abc import Iterator
from functools import partial

from torch import Tensor

from benchmarks.kernels.case import Case, Inputs
from sparsify_core.kernels import reference
from sparsify_core.kernels.by_latent import sort_by_latent


def cases(inputs: Inputs) -> Iterator[Case]:
    num_latents = inputs.shape.num_latents
    indices = [indices for _, indices in inputs.top]
    yield Case(
        "sort",
        [partial(sort_by_latent, own, num_latents) for own in indices],
        "sort, searchsorted",
        [partial(_sort, own.long(), num_latents) for own in indices],
        moved_bytes=(4 + 8) * indices[0].numel(),
    )


def _sort(indices: Tensor, num_latents: int) -> Tensor:
    latents_P, _ = indices.flatten().sort(stable=True)
    return reference.starts(latents_P, num_latents)
