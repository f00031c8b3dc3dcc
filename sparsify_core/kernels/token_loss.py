"""Losses of a chunk of logits with their gradients: logits are read twice and no probabilities are stored.

Legend: N tokens, V vocabulary.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

_BLOCK = 4096
_WARPS = 8


@triton.jit
def _log_sum_exp(row_ptr, V, BLOCK: tl.constexpr):
    lanes = tl.arange(0, BLOCK)
    lowest = tl.full((BLOCK,), -3.4028235e38, tl.float32)  # -inf would be taken from itself
    largest = lowest
    total = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, V, BLOCK):
        logits = tl.load(row_ptr + start + lanes, mask=start + lanes < V, other=float("-inf")).to(tl.float32)
        before = largest
        largest = tl.maximum(before, logits)
        total = total * tl.exp(before - largest) + tl.exp(logits - largest)
    maximum = tl.max(largest, axis=0)
    return maximum + tl.log(tl.sum(total * tl.exp(largest - maximum), axis=0))


@triton.jit
def _cross_entropy(logits_ptr, targets_ptr, loss_ptr, grad_ptr, V, BLOCK: tl.constexpr, GRADIENT: tl.constexpr):
    token = tl.program_id(0).to(tl.int64)  # N * V may pass 2**31
    row_ptr = logits_ptr + token * V
    target = tl.load(targets_ptr + token)
    log_sum = _log_sum_exp(row_ptr, V, BLOCK)
    counts = target >= 0
    loss = log_sum - tl.load(row_ptr + tl.maximum(target, 0)).to(tl.float32)
    tl.store(loss_ptr + token, tl.where(counts, loss, 0))
    if GRADIENT:
        lanes = tl.arange(0, BLOCK)
        for start in range(0, V, BLOCK):
            words = start + lanes
            logits = tl.load(row_ptr + words, mask=words < V, other=0).to(tl.float32)
            q = tl.exp(logits - log_sum)
            grad = tl.where(counts, tl.where(words == target, q - 1, q), 0)
            tl.store(grad_ptr + token * V + words, grad.to(grad_ptr.dtype.element_ty), mask=words < V)


@triton.jit
def _kl_divergence(logits_ptr, clean_ptr, loss_ptr, grad_ptr, V, BLOCK: tl.constexpr, GRADIENT: tl.constexpr):
    token = tl.program_id(0).to(tl.int64)
    lanes = tl.arange(0, BLOCK)
    log_sum_q = _log_sum_exp(logits_ptr + token * V, V, BLOCK)
    log_sum_p = _log_sum_exp(clean_ptr + token * V, V, BLOCK)
    loss = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, V, BLOCK):
        words = start + lanes
        cells = token * V + words
        log_q = tl.load(logits_ptr + cells, mask=words < V, other=0).to(tl.float32) - log_sum_q
        log_p = tl.load(clean_ptr + cells, mask=words < V, other=0).to(tl.float32) - log_sum_p
        p = tl.exp(log_p)
        loss += tl.where(words < V, p * (log_p - log_q), 0)
        if GRADIENT:
            tl.store(grad_ptr + cells, (tl.exp(log_q) - p).to(grad_ptr.dtype.element_ty), mask=words < V)
    tl.store(loss_ptr + token, tl.sum(loss, axis=0))


def cross_entropy(logits_NV: Tensor, targets_N: Tensor, *, needs_gradient: bool = True) -> tuple[Tensor, Tensor | None]:
    """As `reference.cross_entropy`, with fp32 arithmetic.

    Args:
        logits_NV: bf16, fp16 or fp32, contiguous.
        targets_N: int64, below V; not checked, which would wait for the device.

    Raises:
        ValueError: other shapes, dtypes or layouts.
    """
    if targets_N.shape != logits_NV.shape[:1] or targets_N.dtype != torch.int64:
        raise ValueError(f"need {len(logits_NV)} int64 targets, got {targets_N.dtype} {tuple(targets_N.shape)}")
    loss_N, grad_NV, options = _outputs(logits_NV, needs_gradient)
    _cross_entropy[loss_N.shape](logits_NV, targets_N, loss_N, loss_N if grad_NV is None else grad_NV, **options)
    return loss_N, grad_NV


def kl_divergence(logits_NV: Tensor, clean_NV: Tensor, *, needs_gradient: bool = True) -> tuple[Tensor, Tensor | None]:
    """As `reference.kl_divergence`, with fp32 arithmetic; both bf16, fp16 or fp32, contiguous.

    Raises:
        ValueError: other shapes, dtypes or layouts.
    """
    if clean_NV.shape != logits_NV.shape or clean_NV.dtype != logits_NV.dtype or not clean_NV.is_contiguous():
        raise ValueError(
            f"need contiguous clean logits like the others, {logits_NV.dtype} {tuple(logits_NV.shape)}, "
            f"got {clean_NV.dtype} {tuple(clean_NV.shape)}"
        )
    loss_N, grad_NV, options = _outputs(logits_NV, needs_gradient)
    _kl_divergence[loss_N.shape](logits_NV, clean_NV, loss_N, loss_N if grad_NV is None else grad_NV, **options)
    return loss_N, grad_NV


def _outputs(logits_NV: Tensor, needs_gradient: bool) -> tuple[Tensor, Tensor | None, dict[str, int]]:
    """What the kernels write, and their parameters."""
    if logits_NV.dtype not in (torch.bfloat16, torch.float16, torch.float32) or not logits_NV.is_contiguous():
        raise ValueError(f"need contiguous bf16, fp16 or fp32 logits, got {logits_NV.dtype} {logits_NV.stride()}")
    tokens, vocabulary = logits_NV.shape
    loss_N = torch.empty(tokens, dtype=torch.float32, device=logits_NV.device)
    block = min(_BLOCK, triton.next_power_of_2(vocabulary))
    options = {"V": vocabulary, "BLOCK": block, "GRADIENT": needs_gradient, "num_warps": _WARPS}
    return loss_N, torch.empty_like(logits_NV) if needs_gradient else None, options
