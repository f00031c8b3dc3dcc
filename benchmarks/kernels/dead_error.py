"""The AuxK loss on the dead latents with its gradients, against the same products with autograd."""

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.kernels.case import NUM_DEAD, Case, Inputs
from sparsify_core.kernels.dead_error import dead_error


def cases(inputs: Inputs) -> Iterator[Case]:
    num_tokens, width, num_latents = inputs.shape.num_tokens, inputs.shape.width, inputs.shape.num_latents
    num_dead = min(NUM_DEAD, num_latents // 4)
    k = min(width // 2, num_dead)
    weights = [weight.float().requires_grad_() for weight in (inputs.W_enc_MD, inputs.b_enc_M, inputs.W_enc_MD)]
    low = inputs.W_enc_MD
    dead_C = torch.arange(0, num_latents, num_latents // num_dead, device=inputs.device)[:num_dead]
    pairs = list(zip(inputs.x_ND, inputs.grad_NE, strict=True))
    yield Case(
        f"{k} of {num_dead} dead",
        [_with_gradients(partial(dead_error, x, None, *weights, low, low, e, dead_C, k), weights) for x, e in pairs],
        "autograd",
        [_with_gradients(partial(_dense_error, x, *weights, e, dead_C, k), weights) for x, e in pairs],
        flops=5 * 2 * num_tokens * num_dead * width,
    )


def _with_gradients(loss: Callable[[], Tensor], weights: list[Tensor]) -> Callable[[], None]:
    def call() -> None:
        for weight in weights:
            weight.grad = None
        loss().backward()  # type: ignore[no-untyped-call]

    return call


def _dense_error(
    x_ND: Tensor, W_enc_MD: Tensor, b_enc_M: Tensor, W_dec_ME: Tensor, residual_NE: Tensor, dead_C: Tensor, k: int
) -> Tensor:
    W_enc_CD, b_enc_C, W_dec_CE = (
        weight.index_select(0, dead_C).bfloat16() for weight in (W_enc_MD, b_enc_M, W_dec_ME)
    )
    values, places = functional.linear(x_ND, W_enc_CD, b_enc_C).relu().topk(k, sorted=False)
    acts_NC = values.new_zeros(len(x_ND), len(dead_C)).scatter(1, places, values)
    return (acts_NC @ W_dec_CE - residual_NE).float().square().sum()
