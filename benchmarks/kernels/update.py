"""The optimizer step of a decoder of unit rows in one pass, with the bfloat16 copy, against sparsify's way: take out
the gradient along each row, step, bring the rows back to unit norm."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from schedulefree.wrap_schedulefree import ScheduleFreeWrapper
from torch import Tensor, nn

from benchmarks.kernels.case import Case, Inputs
from sparsify_core.kernels.update import adam_corrections, adam_update, signum_update

_LR, _MOMENTUM = 1e-3, 0.95


class _SignSGD(torch.optim.Optimizer):
    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                p.add_(p.grad.sign(), alpha=-group["lr"])


def cases(inputs: Inputs) -> Iterator[Case]:
    rows = nn.functional.normalize(inputs.W_enc_MD.float())
    grad = inputs.normal(*rows.shape)
    scale, copy = torch.ones((), device=inputs.device), torch.empty_like(inputs.W_enc_MD)
    p, z = rows.clone(), rows.clone()
    options: dict[str, Any] = {"scale": scale, "lr": _LR, "normalize": True, "copy": copy}
    yield Case(
        "signum",
        [lambda: signum_update(p, z, grad, share=0.01, momentum=_MOMENTUM, **options)],
        "ScheduleFreeWrapper",
        [_in_turn(rows, grad, _signum)],
        moved_bytes=(5 * 4 + 2) * rows.numel(),
    )
    average, square = torch.zeros_like(rows), torch.zeros_like(rows)
    corrections = adam_corrections(torch.ones((), device=inputs.device))
    yield Case(
        "adam",
        [lambda: adam_update(p, average, square, grad, corrections=corrections, **options)],
        "torch.optim.Adam",
        [_in_turn(rows, grad, lambda p: torch.optim.Adam([p], lr=_LR))],
        moved_bytes=(7 * 4 + 2) * rows.numel(),
    )


def _signum(p: nn.Parameter) -> Any:
    optimizer = ScheduleFreeWrapper(_SignSGD([p], {"lr": _LR}), momentum=_MOMENTUM)
    optimizer.train()
    return optimizer


def _in_turn(rows: Tensor, grad: Tensor, build: Callable[[nn.Parameter], Any]) -> Callable[[], None]:
    p = nn.Parameter(rows.clone())
    p.grad = grad.clone()
    optimizer = build(p)

    @torch.no_grad()
    def step() -> None:
        assert p.grad is not None
        p.grad -= (p.grad * p).sum(dim=1, keepdim=True) * p
        optimizer.step()
        p.div_(p.norm(dim=1, keepdim=True) + torch.finfo(p.dtype).eps)

    return step
