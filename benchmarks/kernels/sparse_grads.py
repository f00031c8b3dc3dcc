"""All gradients of the weights in one pass, sort included, against PyTorch."""

from collections.abc import Iterator
from functools import partial

from benchmarks.kernels.case import Case, Inputs
from sparsify_core.kernels import reference
from sparsify_core.kernels.sparse_grads import sparse_gradients


def cases(inputs: Inputs) -> Iterator[Case]:
    num_entries = inputs.shape.num_tokens * inputs.shape.k
    W_dec_ME = inputs.W_enc_MD
    arguments = [
        (x_ND, grad_NE, *top, W_dec_ME)
        for x_ND, grad_NE, top in zip(inputs.x_ND, inputs.grad_NE, inputs.top, strict=True)
    ]
    yield Case(
        "gradients",
        [partial(sparse_gradients, *own) for own in arguments],
        "reference",
        [partial(reference.sparse_gradients, *own) for own in arguments],
        moved_bytes=2 * 2 * num_entries * inputs.shape.width + (2 * 4 + 2) * W_dec_ME.numel(),
    )
