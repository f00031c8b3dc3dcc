"""The reconstructions from k and from 4k latents in one pass, against one pass each."""

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from benchmarks.kernels.case import Case, Inputs
from sparsify_core.kernels.decode import decode_residual
from sparsify_core.kernels.decode_nested import decode_nested
from sparsify_core.kernels.topk import select_topk


def cases(inputs: Inputs) -> Iterator[Case]:
    k, W_dec_ME = inputs.shape.k, inputs.W_enc_MD
    b_dec_E = torch.zeros(inputs.shape.width, device=inputs.device, dtype=W_dec_ME.dtype)
    selected = [select_topk(*pair, 4 * k, first=k) for pair in zip(inputs.pre_NM, inputs.max_NJ, strict=True)]
    arguments = [(*own, W_dec_ME, b_dec_E, x_ND) for own, x_ND in zip(selected, inputs.x_ND, strict=True)]
    yield Case(
        f"decode {k} of {4 * k}",
        [partial(decode_nested, *own, first=k, weight=0.125) for own in arguments],
        "decode_residual twice",
        [partial(_decode_twice, *own, first=k) for own in arguments],
        moved_bytes=2 * inputs.shape.width * inputs.shape.num_tokens * (4 * k + 4),
    )


def _decode_twice(acts: Tensor, indices: Tensor, *rest: Tensor, first: int) -> None:
    for number in (first, acts.shape[1]):
        own = (part[:, :number].contiguous() for part in (acts, indices))
        decode_residual(*own, *rest, dtype=torch.bfloat16)
