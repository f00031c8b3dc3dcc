"""Gradients and optimizer step of a coder in one kernel, against our own gradients and updates in turn, which dispatch
may choose between: also where one latent is active on every token."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from benchmarks.kernels.case import Case, Inputs
from sparsify_core.kernels.sparse_grads import sparse_gradients
from sparsify_core.kernels.sparse_update import Adam, Parameter, Signum, sparse_update
from sparsify_core.kernels.update import adam_corrections, adam_update, signum_update

_LR = 1e-3


def cases(inputs: Inputs) -> Iterator[Case]:
    for rule in (Signum(_LR, 0.01, 0.95), Adam(_LR, adam_corrections(torch.ones((), device=inputs.device)))):
        for hot in (False, True):
            yield _case(inputs, rule, hot=hot)


def _case(inputs: Inputs, rule: Signum | Adam, *, hot: bool) -> Case:
    num_states = 1 if isinstance(rule, Signum) else 2
    parameters = _parameters(inputs, num_states)
    scale = torch.full((), -2e-3, device=inputs.device)
    batches = []
    for x_ND, grad_NE, (acts, indices) in zip(inputs.x_ND, inputs.grad_NE, inputs.top, strict=True):
        if hot:
            indices = indices.clone()
            indices[:, 0] = inputs.shape.num_latents // 2
        batches.append((x_ND, grad_NE, acts, indices))
    num_entries = inputs.shape.num_tokens * inputs.shape.k
    return Case(
        f"{type(rule).__name__.lower()}{', one latent on all tokens' if hot else ''}",
        [_at_once(batch, parameters, rule, scale) for batch in batches],
        "gradients, updates",
        [_in_turn(batch, parameters, rule, scale) for batch in batches],
        moved_bytes=2 * 2 * num_entries * inputs.shape.width
        + 2 * ((2 + 2 * num_states) * 4 + 2) * inputs.W_enc_MD.numel(),
    )


def _parameters(inputs: Inputs, num_states: int) -> list[Parameter]:
    rows = [inputs.W_enc_MD.float(), inputs.W_enc_MD.float(), inputs.b_enc_M.clone()]
    return [
        Parameter(p, tuple(torch.zeros_like(p) for _ in range(num_states)), p.bfloat16() if p.dim() == 2 else None)
        for p in rows
    ]


def _at_once(
    batch: tuple[Tensor, ...], parameters: list[Parameter], rule: Signum | Adam, scale: Tensor
) -> Callable[[], object]:
    x_ND, grad_NE, acts, indices = batch
    W_dec, W_enc, b_enc = parameters
    return lambda: sparse_update(
        x_ND, grad_NE, acts, indices, W_dec, W_enc, b_enc, rule, scale=scale, normalize=True, with_centre=True
    )


def _in_turn(
    batch: tuple[Tensor, ...], parameters: list[Parameter], rule: Signum | Adam, scale: Tensor
) -> Callable[[], object]:
    x_ND, grad_NE, acts, indices = batch
    low_W_dec = parameters[0].copy
    assert low_W_dec is not None

    def run() -> Tensor:
        grads = sparse_gradients(x_ND, grad_NE, acts, indices, low_W_dec)
        centre_D = -(grads.b_enc_M @ parameters[1].weight)
        for (weight, state, copy), grad in zip(parameters, grads[:3], strict=True):
            step: Callable[..., None] = signum_update if isinstance(rule, Signum) else adam_update
            normalize = weight is parameters[0].weight
            step(weight, *state, grad, scale=scale, normalize=normalize, copy=copy, **rule._asdict())
        return centre_D

    return run
