"""Decoder, residual and squared error in one pass, against embedding_bag and two more."""

from collections.abc import Iterator
from functools import partial

import torch

from benchmarks.kernels.case import Case, Inputs
from sparsify_core.kernels import reference
from sparsify_core.kernels.decode import decode_residual


def cases(inputs: Inputs) -> Iterator[Case]:
    W_dec_ME = inputs.W_enc_MD
    b_dec_E = torch.zeros(inputs.shape.width, device=inputs.device, dtype=W_dec_ME.dtype)
    arguments = [(*top, W_dec_ME, b_dec_E, x_ND) for top, x_ND in zip(inputs.top, inputs.x_ND, strict=True)]
    yield Case(
        "decode, residual",
        [partial(decode_residual, *own, dtype=torch.bfloat16) for own in arguments],
        "embedding_bag, ...",
        [partial(reference.decode_residual, *own) for own in arguments],
        moved_bytes=2 * inputs.shape.width * inputs.shape.num_tokens * (inputs.shape.k + 2),
    )
