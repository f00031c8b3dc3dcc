"""The masked product with the sums of its columns, against the library's product and two more passes."""

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from benchmarks.kernels.case import NUM_DEAD, Case, Inputs
from sparsify_core.kernels.masked_gemm import multiply_masked


def cases(inputs: Inputs) -> Iterator[Case]:
    dtype = torch.bfloat16 if inputs.device.startswith("cuda") else torch.float16  # see masked_gemm
    columns = min(NUM_DEAD, inputs.shape.num_latents // 4)
    right_CE = inputs.W_enc_MD[:columns].to(dtype).contiguous()
    mask_NC = inputs.normal(inputs.shape.num_tokens, columns, dtype=dtype)
    left_NE = [grad_NE.to(dtype) for grad_NE in inputs.grad_NE]
    yield Case(
        f"product with {columns}",
        [partial(multiply_masked, own, right_CE, mask_NC) for own in left_NE],
        "product, mask, sum",
        [partial(_multiply, own, right_CE, mask_NC) for own in left_NE],
        flops=2 * len(mask_NC) * right_CE.numel(),
    )


def _multiply(left_NE: Tensor, right_CE: Tensor, mask_NC: Tensor) -> Tensor:
    return torch.where(mask_NC > 0, left_NE @ right_CE.T, 0).sum(0, dtype=torch.float32)
