"""The first half of a transformer's MLP in one pass: a matrix product whose activation function, and for gated MLPs
the product with a second one, is computed in its registers. Otherwise these are written and read again.

Legend: N tokens, F features, D width.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula
from triton.tools.tensor_descriptor import TensorDescriptor

from sparsify_core.kernels import tuning
from sparsify_core.kernels.tiles import in_halves, num_programs, tile_at

FUNCTIONS = ("silu", "gelu", "gelu_tanh", "relu")
"""Activation functions, by their names in PyTorch; gelu_tanh is GELU's approximation by tanh."""

_TILE = {"TOKENS": 128, "WIDTH": 64, "num_warps": 8}
"""WIDTH is the same in all: a number is a sum over the width, added piece after piece."""

GATED_LAUNCHES = tuple(
    _TILE | {"FEATURES": 128, "TOKEN_TILES": height, "FLAT": flat, "num_stages": 3}
    for flat, height in ((1, 16), (0, 16), (0, 8))
)
"""FEATURES of each of the two products. FLAT: the loads of the next tile begin while this one is being written. Not
FLAT: some warps load, and others multiply; Triton cannot compile that for every GPU."""

PLAIN_LAUNCHES = tuple(
    _TILE | {"FEATURES": 256, "TOKEN_TILES": height, "FLAT": 1, "num_stages": stages}
    for stages in (3, 4)
    for height in (16, 8)
)


@triton.jit
def _activate(x, FUNCTION: tl.constexpr):
    if FUNCTION == "silu":
        return x / (1.0 + tl.exp(-x))
    elif FUNCTION == "gelu_tanh":  # (1 + tanh(u)) / 2 is the logistic function of 2 u
        return x / (1.0 + tl.exp(-1.5957691216057308 * x * (1.0 + 0.044715 * x * x)))
    elif FUNCTION == "gelu":
        # erf(z) / z as a polynomial in z^2, scaled to [-1, 1], through Chebyshev nodes: erf within 2e-6 everywhere.
        # The library's is exact to the last bit, and takes longer than the products.
        z = tl.minimum(tl.maximum(x * 0.7071067811865476, -3.5), 3.5)
        s = z * z * 0.16326530612244897 - 1.0
        ratio = -0.00329328212 * s + 0.00858741626
        ratio = ratio * s - 0.00897871517
        ratio = ratio * s + 0.0127995051
        ratio = ratio * s - 0.0284414515
        ratio = ratio * s + 0.047020223
        ratio = ratio * s - 0.0653950199
        ratio = ratio * s + 0.0879797935
        ratio = ratio * s - 0.114514224
        ratio = ratio * s + 0.146782234
        ratio = ratio * s - 0.200705305
        ratio = ratio * s + 0.403872609
        return 0.5 * x * (1.0 + z * ratio)
    else:
        return tl.maximum(x, 0.0, propagate_nan=tl.PropagateNan.ALL)


@triton.jit(do_not_specialize=["TOKEN_TILES"])
def _activated(
    x_desc,
    weight_desc,
    other_desc,
    out_desc,
    bias_ptr,
    N,
    F,
    TOKEN_TILES,
    D: tl.constexpr,
    FUNCTION: tl.constexpr,
    IS_GATED: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    FLAT: tl.constexpr,
    TOKENS: tl.constexpr,
    FEATURES: tl.constexpr,
    WIDTH: tl.constexpr,
    PROGRAMS: tl.constexpr,
):
    token_tiles = tl.cdiv(N, TOKENS)
    feature_tiles = tl.cdiv(F, FEATURES)
    tiles = token_tiles * feature_tiles
    for tile in tl.range(tl.program_id(0), tiles, PROGRAMS, flatten=FLAT, warp_specialize=not FLAT):
        row, column = tile_at(tile, token_tiles, feature_tiles, TOKEN_TILES)
        token, feature = row * TOKENS, column * FEATURES
        products = tl.zeros((TOKENS, FEATURES), tl.float32)
        others = tl.zeros((TOKENS, FEATURES), tl.float32)
        for start in range(0, D, WIDTH):
            x = x_desc.load([token, start])
            products = tl.dot(x, weight_desc.load([feature, start]).T, products)
            if IS_GATED:
                others = tl.dot(x, other_desc.load([feature, start]).T, others)
        if HAS_BIAS:
            features = feature + tl.arange(0, FEATURES)
            products += tl.load(bias_ptr + features, mask=features < F, other=0.0).to(tl.float32)[None, :]
        if IS_GATED:
            out_desc.store([token, feature], (_activate(products, FUNCTION) * others).to(out_desc.dtype))
        else:
            HALF: tl.constexpr = FEATURES // 2
            left, right = in_halves(products, TOKENS, FEATURES)
            out_desc.store([token, feature], _activate(left, FUNCTION).to(out_desc.dtype))
            out_desc.store([token, feature + HALF], _activate(right, FUNCTION).to(out_desc.dtype))


def activated_gemm(
    x_ND: Tensor, weight_FD: Tensor, function: str, bias_F: Tensor | None = None, other_FD: Tensor | None = None
) -> Tensor:
    """function(x @ weight.T + bias) * (x @ other.T), computed in fp32 and rounded once.

    Needs a GPU with tensor memory access (Hopper or newer), for which D and F must be multiples of 8.

    Args:
        x_ND: bf16 or fp16, contiguous, like all the others. Without a GPU only fp16 is right: Triton's interpreter does
            not multiply bf16.
        function: one of FUNCTIONS.
        other_FD: None leaves the second product out.

    Returns:
        (N, F), in the dtype of `x_ND`.

    Raises:
        ValueError: wrong shapes, dtypes or layouts, or an unknown function.
    """
    (tokens, width), features = x_ND.shape, len(weight_FD)
    given = [x_ND, weight_FD, *(t for t in (bias_F, other_FD) if t is not None)]
    if x_ND.dtype not in (torch.bfloat16, torch.float16) or any(t.dtype != x_ND.dtype for t in given):
        raise ValueError(f"need everything in bf16 or everything in fp16, got {[str(t.dtype) for t in given]}")
    shapes = [(tokens, width), (features, width), *([] if bias_F is None else [(features,)])]
    if [tuple(t.shape) for t in given] != shapes + ([] if other_FD is None else [(features, width)]):
        raise ValueError(f"shapes do not fit: {[tuple(t.shape) for t in given]}")
    if not all(t.is_contiguous() for t in given):
        raise ValueError("need contiguous tensors")
    if width % 8 or features % 8:
        raise ValueError(f"need widths and features that are multiples of 8, got {width} and {features}")
    if function not in FUNCTIONS:
        raise ValueError(f"{function!r} is none of {', '.join(FUNCTIONS)}")
    out_NF = x_ND.new_empty(tokens, features)
    programs = num_programs(x_ND.device)
    is_gated = other_FD is not None
    other_FD = weight_FD if other_FD is None else other_FD  # a descriptor that is not used

    def run(launch: tuning.Launch) -> None:
        tile_tokens, tile_features, tile_width = (launch[name] for name in ("TOKENS", "FEATURES", "WIDTH"))
        _activated[(min(programs, triton.cdiv(tokens, tile_tokens) * triton.cdiv(features, tile_features)),)](
            TensorDescriptor.from_tensor(x_ND, [tile_tokens, tile_width]),
            TensorDescriptor.from_tensor(weight_FD, [tile_features, tile_width]),
            TensorDescriptor.from_tensor(other_FD, [tile_features, tile_width]),
            TensorDescriptor.from_tensor(out_NF, [tile_tokens, tile_features if is_gated else tile_features // 2]),
            bias_F,
            tokens,
            features,
            D=width,
            FUNCTION=function,
            IS_GATED=is_gated,
            HAS_BIAS=bias_F is not None,
            PROGRAMS=programs,
            **launch,
        )

    launches = GATED_LAUNCHES if is_gated else PLAIN_LAUNCHES
    kind = f"{function}{' gated' if is_gated else ''}"
    key = f"activated_gemm {kind} N {tuning.round_up(tokens)} F {features} D {width} {x_ND.dtype}"
    run(tuning.choose(tuning.Space(key, launches), x_ND.device, run))
    return out_NF


operation = torch.library.custom_op("sparseboard::activated_gemm", activated_gemm, mutates_args=())
"""`activated_gemm` for compiled code, which takes it as a whole."""


@operation.register_fake
def _shape(
    x_ND: Tensor, weight_FD: Tensor, function: str, bias_F: Tensor | None = None, other_FD: Tensor | None = None
) -> Tensor:
    return x_ND.new_empty(len(x_ND), len(weight_FD))


@register_flop_formula(torch.ops.sparseboard.activated_gemm)
def _operations(
    x_shape: torch.Size,
    weight_shape: torch.Size,
    _function: str,
    _bias_shape: torch.Size | None = None,
    other_shape: torch.Size | None = None,
    **_options: object,
) -> int:
    """Of the products alone, as PyTorch counts for others."""
    return 2 * x_shape.numel() * weight_shape[0] * (1 if other_shape is None else 2)
