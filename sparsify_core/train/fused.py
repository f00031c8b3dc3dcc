"""Optimizer steps on CUDA in one pass over each parameter, on the state that the optimizers of train.optim keep.

They leave the coder's matrices rounded to bfloat16 behind, for the next step's products.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from sparsify_core.model.coder import SparseCoder


@torch.no_grad()
def signum_step(
    coder: SparseCoder, group: dict[str, Any], state: Mapping[Tensor, dict[str, Any]], scale: Tensor, *, momentum: float
) -> None:
    """One step of schedule-free SignSGD on `coder`.

    Args:
        group: its parameter group, whose scalars go one step on.
        state: of the optimizer, by parameter; `z` is made where it is missing.
        scale: float32 scalar that multiplies the gradients.
    """
    from sparsify_core.kernels import update  # Triton is there only with CUDA

    share = update.averaging_share(group)
    for p in group["params"]:
        own = state[p]
        if "z" not in own:
            own["z"] = torch.clone(p, memory_format=torch.preserve_format)
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
def adam_step(coder: SparseCoder, group: dict[str, Any], state: Mapping[Tensor, dict[str, Any]], scale: Tensor) -> None:
    """One step of Adam on `coder`; arguments as in `signum_step`."""
    from sparsify_core.kernels import update  # see signum_step

    for p in group["params"]:
        own = state[p]
        if "step" not in own:
            own["step"] = torch.zeros((), dtype=torch.float32, device=p.device)
            own["exp_avg"], own["exp_avg_sq"] = torch.zeros_like(p), torch.zeros_like(p)
        own["step"] += 1
        update.adam_update(
            p.data,
            own["exp_avg"],
            own["exp_avg_sq"],
            p.grad.contiguous(),
            scale=scale,
            corrections=update.adam_corrections(own["step"]),
            lr=group["lr"],
            normalize=coder.normalizes_decoder and p is coder.W_dec,
            copy=_copy_of(coder, p),
        )


def _copy_of(coder: SparseCoder, p: Tensor) -> Tensor | None:
    """Where the rounded `p` goes; None for those that no product reads."""
    if p is not coder.W_dec and p is not coder.encoder.weight:
        return None
    if p not in coder.rounded:
        coder.rounded[p] = torch.empty_like(p, dtype=torch.bfloat16)
    return coder.rounded[p]
