"""Optimizer steps on CUDA in one pass over each parameter, on the state that the optimizers of train.optim keep.

All but muon's leave the coder's matrices rounded to bfloat16 behind, for the next step's products.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from sparsify_core.model.coder import SparseCoder
from sparsify_core.model.losses import Entries
from sparsify_core.train.muon import MOMENTUM, Muon


@torch.no_grad()
def signum_step(
    coder: SparseCoder,
    group: dict[str, Any],
    state: Mapping[Tensor, dict[str, Any]],
    scale: Tensor,
    entries: Entries | None = None,
    *,
    momentum: float,
) -> None:
    """One step of schedule-free SignSGD on `coder`.

    Args:
        group: its parameter group, whose scalars go one step on.
        state: of the optimizer, by parameter; `z` is made where it is missing.
        scale: float32 scalar that multiplies the gradients.
        entries: what the gradients are made of; None: they are in `.grad`.
    """
    from sparsify_core.kernels import sparse_update, update  # Triton is there only with CUDA

    share = update.averaging_share(group)
    for p in group["params"]:
        if "z" not in state[p]:
            state[p]["z"] = torch.clone(p, memory_format=torch.preserve_format)
    if entries is not None:
        _step_from(entries, coder, state, ("z",), sparse_update.Signum(group["lr"], share, momentum), scale)
    for p in (p for p in group["params"] if p.grad is not None):
        own = state[p]
        update.signum_update(
            p.data,
            own["z"],
            p.grad.contiguous(),
            scale=scale,
            lr=group["lr"],
            share=share,
            momentum=momentum,
            normalize=coder.normalizes_decoder and p is coder.W_dec,
            copy=_copy_of(coder, p),
        )


@torch.no_grad()
def adam_step(
    coder: SparseCoder,
    group: dict[str, Any],
    state: Mapping[Tensor, dict[str, Any]],
    scale: Tensor,
    entries: Entries | None = None,
) -> None:
    """One step of Adam on `coder`; arguments as in `signum_step`."""
    from sparsify_core.kernels import sparse_update, update  # see signum_step

    for p in group["params"]:
        own = state[p]
        if "step" not in own:
            own["step"] = torch.zeros((), dtype=torch.float32, device=p.device)
            own["exp_avg"], own["exp_avg_sq"] = torch.zeros_like(p), torch.zeros_like(p)
        own["step"] += 1
    corrections = update.adam_corrections(state[coder.W_dec]["step"])  # all parameters step together
    if entries is not None:
        _step_from(
            entries, coder, state, ("exp_avg", "exp_avg_sq"), sparse_update.Adam(group["lr"], corrections), scale
        )
    for p in (p for p in group["params"] if p.grad is not None):
        own = state[p]
        update.adam_update(
            p.data,
            own["exp_avg"],
            own["exp_avg_sq"],
            p.grad.contiguous(),
            scale=scale,
            corrections=corrections,
            lr=group["lr"],
            normalize=coder.normalizes_decoder and p is coder.W_dec,
            copy=_copy_of(coder, p),
        )


@torch.no_grad()
def muon_step(coder: SparseCoder, muon: Muon, vectors: torch.optim.Optimizer, scale: Tensor) -> None:
    """One step of Muon on the matrices of `coder`, and of the optimizer of its `vectors`; `scale` as in `signum_step`.

    The gradients of matrices are gone as soon as they are taken in.
    """
    from sparsify_core.kernels.muon_average import muon_average  # see signum_step

    def look_ahead(p: Tensor, average: Tensor) -> Tensor:
        unit = p.data if coder.normalizes_decoder and p is coder.W_dec else None
        grad = torch.as_tensor(p.grad).contiguous()
        ahead = muon_average(average, grad, scale=scale, momentum=MOMENTUM, unit_RW=unit)
        p.grad = None
        return ahead

    muon.step_by(look_ahead)
    for p in (p for group in vectors.param_groups for p in group["params"] if p.grad is not None):
        p.grad *= scale
    vectors.step()
    if coder.normalizes_decoder:
        coder.normalize_decoder()


def _copy_of(coder: SparseCoder, p: Tensor) -> Tensor | None:
    """Where the rounded `p` goes; None for those that no product reads."""
    if p is not coder.W_dec and p is not coder.encoder.weight:
        return None
    if p not in coder.rounded:
        coder.rounded[p] = coder.in_bfloat16(p)
    return coder.rounded[p]


def _step_from(
    entries: Entries,
    coder: SparseCoder,
    state: Mapping[Tensor, dict[str, Any]],
    keys: tuple[str, ...],
    rule: Any,
    scale: Tensor,
) -> None:
    """Step all parameters but b_dec, whose gradient is left in `.grad`, before it is scaled.

    Args:
        keys: of the state that `rule` (sparse_update.Signum or Adam) goes by.
    """
    from sparsify_core.kernels.sparse_update import Parameter, sparse_update  # see signum_step

    def parameter(p: Tensor) -> Parameter:
        return Parameter(p.data, tuple(state[p][key] for key in keys), _copy_of(coder, p))

    acts, indices, tokens_P = entries.latents
    found = sparse_update(
        entries.x_ND,
        entries.residual_NE,
        acts,
        indices,
        parameter(coder.W_dec),
        parameter(coder.encoder.weight),
        parameter(coder.encoder.bias),
        rule,
        scale=-2 * scale,
        normalize=coder.normalizes_decoder,
        tokens_P=tokens_P,
        straight_through=coder.straight_through,
        with_centre=not coder.is_transcoder,
    )
    entries.fired_M.add_(found.counts_M)
    coder.b_dec.grad = -2 * entries.residual_NE.sum(0, dtype=torch.float32)
    if found.centre_D is not None:
        coder.b_dec.grad += found.centre_D / scale
