"""The encoder's product with the group maxima, against the library's product and a pass for the ReLU."""

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.kernels.case import Case, Inputs
from sparsify_core.kernels.encode_gemm import encode_gemm


def cases(inputs: Inputs) -> Iterator[Case]:
    dtype = torch.bfloat16 if inputs.device.startswith("cuda") else torch.float16  # see encode_gemm
    x_ND = [x_ND.to(dtype) for x_ND in inputs.x_ND]
    weight_MD, bias_M = inputs.W_enc_MD.to(dtype), inputs.b_enc_M.to(dtype)
    yield Case(
        "encode",
        [partial(encode_gemm, x, weight_MD, bias_M) for x in x_ND],
        "linear, relu",
        [partial(_linear_relu, x, weight_MD, bias_M) for x in x_ND],
        flops=2 * len(x_ND[0]) * weight_MD.numel(),
    )


def _linear_relu(x_ND: Tensor, weight_MD: Tensor, bias_M: Tensor) -> Tensor:
    return functional.relu(functional.linear(x_ND, weight_MD, bias_M))
