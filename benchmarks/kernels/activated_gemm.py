"""The first half of an MLP in one pass, against the library's products and a compiled pass for the rest."""

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.kernels.case import Case, Inputs
from sparsify_core.kernels.activated_gemm import activated_gemm


def cases(inputs: Inputs) -> Iterator[Case]:
    is_cuda = inputs.device.startswith("cuda")
    dtype = torch.bfloat16 if is_cuda else torch.float16  # see activated_gemm
    x_ND = [x_ND.to(dtype) for x_ND in inputs.x_ND]
    width = x_ND[0].shape[1]
    # As wide as in the Llamas, where two such matrices are gated, and in GPT-NeoX.
    first, other = (w.to(dtype).contiguous() for w in inputs.W_enc_MD[: 16 * width // 3 // 16 * 16].chunk(2))
    wide, bias = inputs.W_enc_MD[: 4 * width].to(dtype), inputs.b_enc_M[: 4 * width].to(dtype)
    compiled = torch.compile if is_cuda else lambda function, **_: function
    gated, plain = (compiled(function, dynamic=False) for function in (_gated, _plain))
    yield Case(
        "silu, gated",
        [partial(activated_gemm, x, first, "silu", other_FD=other) for x in x_ND],
        "linears, compiled",
        [partial(gated, x, first, other) for x in x_ND],
        flops=4 * len(x_ND[0]) * first.numel(),
    )
    yield Case(
        "gelu",
        [partial(activated_gemm, x, wide, "gelu", bias) for x in x_ND],
        "linear, compiled",
        [partial(plain, x, wide, bias) for x in x_ND],
        flops=2 * len(x_ND[0]) * wide.numel(),
    )


def _gated(x_ND: Tensor, first_FD: Tensor, other_FD: Tensor) -> Tensor:
    return functional.silu(functional.linear(x_ND, first_FD)) * functional.linear(x_ND, other_FD)


def _plain(x_ND: Tensor, weight_FD: Tensor, bias_F: Tensor) -> Tensor:
    return functional.gelu(functional.linear(x_ND, weight_FD, bias_F))
