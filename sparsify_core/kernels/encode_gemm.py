"""The encoder's matrix product with the group maxima taken from its registers: the pre-activations are written once and
not read again but for the groups that a selection wants.

Legend: N tokens, M latents, D width, J = ceil(M / GROUP) groups per token.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from sparsify_core.kernels import tuning
from sparsify_core.kernels.dispatch import GROUP
from sparsify_core.kernels.tiles import in_halves, num_programs, tile_at

_TILES = ((128, 256, 3), (128, 256, 4), (256, 128, 3), (128, 128, 4))
"""TOKENS and LATENTS of a tile, which 8 warps multiply at once, and how many tiles of the width are under way in the
shared memory."""

_TOKEN_TILES = (16, 8, 4)
"""How many tiles of tokens are done together: they find the same tiles of the encoder in the L2 cache."""

LAUNCHES = tuple(
    {"TOKENS": t, "LATENTS": n, "WIDTH": 64, "TOKEN_TILES": height, "num_stages": stages, "num_warps": 8}
    for t, n, stages in _TILES
    for height in _TOKEN_TILES
)
"""WIDTH is the same in all: a number is a sum over the width, added piece after piece."""


@triton.jit
def _larger(left, right):
    return tl.maximum(left, right, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def _emit(
    products,
    bias_ptr,
    pre_desc,
    max_ptr,
    first_token,
    first_latent,
    N,
    M,
    J,
    TOKENS: tl.constexpr,
    LATENTS: tl.constexpr,
    GROUP: tl.constexpr,
):
    latents = first_latent + tl.arange(0, LATENTS)
    # Beyond the last latent everything is -inf: it is never a maximum, and the descriptor does not store it.
    bias = tl.load(bias_ptr + latents, mask=latents < M, other=float("-inf")).to(tl.float32)
    pre = products + bias[None, :]
    pre_desc.store([first_token, first_latent], pre.to(pre_desc.dtype))
    maxima = tl.reduce(tl.reshape(pre, (TOKENS, LATENTS // GROUP, GROUP)), 2, _larger)
    maxima = tl.where(maxima <= 0, 0.0, maxima)  # keeps NaN, and leaves no minus zero
    tokens = first_token + tl.arange(0, TOKENS)
    groups = first_latent // GROUP + tl.arange(0, LATENTS // GROUP)
    cells = max_ptr + tokens.to(tl.int64)[:, None] * J + groups[None, :]
    tl.store(cells, maxima.to(max_ptr.dtype.element_ty), mask=(tokens < N)[:, None] & (groups < J)[None, :])


@triton.jit(do_not_specialize=["TOKEN_TILES"])
def _encode(
    x_desc,
    weight_desc,
    bias_ptr,
    pre_desc,
    max_ptr,
    N,
    M,
    J,
    TOKEN_TILES,
    D: tl.constexpr,
    TOKENS: tl.constexpr,
    LATENTS: tl.constexpr,
    WIDTH: tl.constexpr,
    GROUP: tl.constexpr,
    PROGRAMS: tl.constexpr,
):
    token_tiles = tl.cdiv(N, TOKENS)
    latent_tiles = tl.cdiv(M, LATENTS)
    # Flattened, the loads of the next tile begin while this one is being written: 2.6 instead of 3.2 ms at M = 18,432.
    for tile in tl.range(tl.program_id(0), token_tiles * latent_tiles, PROGRAMS, flatten=True):
        row, column = tile_at(tile, token_tiles, latent_tiles, TOKEN_TILES)
        first_token, first_latent = row * TOKENS, column * LATENTS
        products = tl.zeros((TOKENS, LATENTS), tl.float32)
        for start in range(0, D, WIDTH):
            x = x_desc.load([first_token, start])
            weight = weight_desc.load([first_latent, start])
            products = tl.dot(x, weight.T, products)
        left, right = in_halves(products, TOKENS, LATENTS)
        HALF: tl.constexpr = LATENTS // 2
        _emit(left, bias_ptr, pre_desc, max_ptr, first_token, first_latent, N, M, J, TOKENS, HALF, GROUP)
        _emit(right, bias_ptr, pre_desc, max_ptr, first_token, first_latent + HALF, N, M, J, TOKENS, HALF, GROUP)


def encode_gemm(x_ND: Tensor, weight_MD: Tensor, bias_M: Tensor) -> tuple[Tensor, Tensor]:
    """pre = x @ weight.T + bias, summed in fp32, and its `group_maxima`.

    Needs a GPU with tensor memory access (Hopper or newer), for which D and M must be multiples of 8.

    Args:
        x_ND: bf16 or fp16, contiguous, like `weight_MD`. Without a GPU only fp16 is right: Triton's interpreter does
            not multiply bf16.
        bias_M: bf16, fp16 or fp32.

    Returns:
        pre (N, M), without ReLU, and maxima (N, J), both in the dtype of `x_ND`.

    Raises:
        ValueError: wrong shapes, dtypes or layouts.
    """
    (tokens, width), latents = x_ND.shape, len(weight_MD)
    if x_ND.dtype not in (torch.bfloat16, torch.float16) or weight_MD.dtype != x_ND.dtype:
        raise ValueError(f"need x and weight both in bf16 or fp16, got {x_ND.dtype} and {weight_MD.dtype}")
    if weight_MD.shape != (latents, width) or bias_M.shape != (latents,):
        raise ValueError(
            f"x {tuple(x_ND.shape)}, weight {tuple(weight_MD.shape)}, bias {tuple(bias_M.shape)} do not fit"
        )
    if not (x_ND.is_contiguous() and weight_MD.is_contiguous() and bias_M.is_contiguous()):
        raise ValueError("need contiguous x, weight and bias")
    if width % 8 or latents % 8:
        raise ValueError(f"need widths and latents that are multiples of 8, got {width} and {latents}")
    groups = triton.cdiv(latents, GROUP)
    pre_NM = torch.empty(tokens, latents, dtype=x_ND.dtype, device=x_ND.device)
    max_NJ = torch.empty(tokens, groups, dtype=x_ND.dtype, device=x_ND.device)
    programs = num_programs(x_ND.device)

    def run(launch: tuning.Launch) -> None:
        tile_tokens, tile_latents, tile_width = (launch[name] for name in ("TOKENS", "LATENTS", "WIDTH"))
        _encode[(min(programs, triton.cdiv(tokens, tile_tokens) * triton.cdiv(latents, tile_latents)),)](
            TensorDescriptor.from_tensor(x_ND, [tile_tokens, tile_width]),
            TensorDescriptor.from_tensor(weight_MD, [tile_latents, tile_width]),
            bias_M,
            TensorDescriptor.from_tensor(pre_NM, [tile_tokens, tile_latents // 2]),
            max_NJ,
            tokens,
            latents,
            groups,
            D=width,
            GROUP=GROUP,
            PROGRAMS=programs,
            **launch,
        )

    run(tuning.choose(launches(tokens, latents, width, x_ND.dtype), x_ND.device, run))
    return pre_NM, max_NJ


def launches(tokens: int, latents: int, width: int, dtype: torch.dtype) -> tuning.Space:
    """What `encode_gemm` chooses from for x (tokens, width)."""
    return tuning.Space(f"encode_gemm N {tuning.round_up(tokens)} M {latents} D {width} {dtype}", LAUNCHES)
