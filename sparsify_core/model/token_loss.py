"""End-to-end losses: what the spliced reconstructions do to the language model's predictions, as sums over tokens.

Sums, for the reason given in losses.py. Logits are read from hidden states a few tokens at a time, in the backward's
stead: loss and gradient of a chunk are computed together, and only the gradient of its hidden states is kept (as Liger
Kernel's fused linear cross-entropy does; Hsu et al. 2024).

Legend: B sequences, L tokens, N = B * L, D width of the hidden states, V vocabulary.
"""

from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from sparsify_core.kernels import reference
from sparsify_core.kernels.dispatch import choose_token_loss
from sparsify_core.timing import Span

_CHUNK_LOGITS = {"cpu": 1 << 24, "cuda": 1 << 26}
"""Logits that exist at a time: 64 MiB in float32, 128 MiB in bfloat16."""

_NO_TARGET = -100

Readout = Callable[[Tensor], Tensor]
"""Hidden states (N, D) of any tokens -> their logits (N, V), differentiable; what it is made of is frozen."""

_Losses = Callable[[Tensor, Tensor, bool], tuple[Tensor, Tensor | None]]
"""Logits (N, V), what they are compared with (N, ...), whether a gradient is needed -> losses (N) and the gradient."""


def _given(logits_NV: Tensor) -> Tensor:
    return logits_NV


def cross_entropy_sum(states_BLD: Tensor, input_ids_BL: Tensor, readout: Readout = _given) -> Tensor:
    """sum over b, l < L-1 of -log q(token l+1 | tokens up to l), q the softmax of the logits; nats.

    Args:
        states_BLD: hidden states; the logits themselves without a `readout`.

    Returns:
        A float64 scalar over B * (L - 1) predicted tokens.
    """
    targets_BL = input_ids_BL.roll(-1, 1)
    targets_BL[:, -1] = _NO_TARGET
    losses = partial(_cross_entropy, _kernels(states_BLD))
    return _chunked_sum(states_BLD, targets_BL, readout, losses)


def kl_sum(states_BLD: Tensor, clean_BLD: Tensor, readout: Readout = _given) -> Tensor:
    """sum over b, l of KL(p || q) = sum_v p_v (log p_v - log q_v), p from the clean states, q from `states_BLD`; nats.

    Upstream's "kl" leaves out log p: a cross-entropy, that does not become 0 for a perfect coder.

    Args:
        states_BLD, clean_BLD: hidden states; the logits themselves without a `readout`. The second gets no gradient.

    Returns:
        A float64 scalar over B * L predicted tokens.
    """
    losses = partial(_kl, _kernels(states_BLD), readout)
    return _chunked_sum(states_BLD, clean_BLD, readout, losses)


def _chunked_sum(states_BLD: Tensor, references_BL: Tensor, readout: Readout, losses: _Losses) -> Tensor:
    apply: Callable[..., Tensor] = _ChunkedSum.apply
    return apply(states_BLD.flatten(0, 1), references_BL.flatten(0, 1), readout, losses)


class _ChunkedSum(torch.autograd.Function):
    """Sum of the losses, float64. The gradient of the states is there before anybody asks for it."""

    @staticmethod
    def forward(ctx: Any, states_ND: Tensor, references_N: Tensor, readout: Readout, losses: _Losses) -> Tensor:
        needs_gradient = ctx.needs_input_grad[0]
        grad_ND = torch.empty_like(states_ND) if needs_gradient else None
        total = torch.zeros((), dtype=torch.float64, device=states_ND.device)
        size = max(_CHUNK_LOGITS["cuda" if states_ND.is_cuda else "cpu"] // readout(states_ND[:1]).shape[-1], 1)
        for start in range(0, len(states_ND), size):
            part = slice(start, start + size)
            states_nD = states_ND[part].detach().requires_grad_(needs_gradient)
            with torch.enable_grad():
                logits_nV = readout(states_nD)
            loss_n, grad_nV = losses(logits_nV.detach().contiguous(), references_N[part], needs_gradient)
            total += loss_n.sum(dtype=torch.float64)
            if grad_ND is not None:
                with Span("backward"):
                    (grad_ND[part],) = torch.autograd.grad(logits_nV, states_nD, grad_nV)
        if grad_ND is not None:
            ctx.save_for_backward(grad_ND)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_total: Tensor) -> tuple[Tensor | None, ...]:
        (grad_ND,) = ctx.saved_tensors
        return grad_ND * grad_total, None, None, None


def _cross_entropy(
    kernels: ModuleType, logits_NV: Tensor, targets_N: Tensor, needs_gradient: bool
) -> tuple[Tensor, Tensor | None]:
    result: tuple[Tensor, Tensor | None] = kernels.cross_entropy(logits_NV, targets_N, needs_gradient=needs_gradient)
    return result


def _kl(
    kernels: ModuleType, readout: Readout, logits_NV: Tensor, clean_ND: Tensor, needs_gradient: bool
) -> tuple[Tensor, Tensor | None]:
    clean_NV = readout(clean_ND).contiguous()
    result: tuple[Tensor, Tensor | None] = kernels.kl_divergence(logits_NV, clean_NV, needs_gradient=needs_gradient)
    return result


def _kernels(states: Tensor) -> ModuleType:
    if not choose_token_loss(states.device, states.dtype).is_kernel:
        return reference
    from sparsify_core.kernels import token_loss  # Triton is there only with CUDA

    return token_loss
