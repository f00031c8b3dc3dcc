"""Find MLPs whose first half is a product with an activation function, gated or not, and compute that half in one pass.

What a module computes is found by trying, not by its name: a composition of its own parts must give the same, to the
bit.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from sparsify_core.kernels.dispatch import choose_mlp

_FUNCTIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "silu": functional.silu,
    "gelu": functional.gelu,
    "gelu_tanh": lambda x: functional.gelu(x, approximate="tanh"),
    "relu": functional.relu,
}
"""What `kernels.activated_gemm` can compute."""


class Mlp(NamedTuple):
    """last(function(first(x)) * other(x)), without `other` where nothing is gated."""

    first: nn.Linear
    function: str
    other: nn.Linear | None
    last: nn.Linear


def fused_mlps(modules: Iterable[nn.Module]) -> dict[nn.Module, Callable[[Tensor], Tensor]]:
    """Of the MLPs in `modules`, or that they are, those for which there is a kernel, and what they compute instead."""
    forwards = {}
    for module in modules:
        for part in module.modules():
            mlp = find_mlp(part)
            if mlp is not None and _has_kernel(mlp):
                forwards[part] = fused(mlp, part.forward)
    return forwards


@torch.no_grad()
def find_mlp(module: nn.Module) -> Mlp | None:
    """What kind of MLP a module is; None for everything else."""
    parts = list(module.children())
    linears = [part for part in parts if type(part) is nn.Linear]
    others = [part for part in parts if not isinstance(part, nn.Linear | nn.Dropout)]
    if len(linears) not in (2, 3) or len(others) != 1 or len(list(module.modules())) != len(parts) + 1:
        return None
    act = others[0]
    function = _name_of(act)
    if function is None:
        return None
    weight = linears[0].weight
    generator = torch.Generator(weight.device).manual_seed(0)
    x_ND = torch.randn(4, linears[0].in_features, generator=generator, device=weight.device).to(weight.dtype)
    for mlp in _arrangements(linears, function):
        try:
            given, composed = module.forward(x_ND), _compose(mlp, act, x_ND)
        except (RuntimeError, TypeError):  # sizes do not fit, or it takes other inputs
            continue
        if isinstance(given, Tensor) and torch.equal(given, composed):
            return mlp
    return None


def _name_of(act: nn.Module) -> str | None:
    """Which of the known functions an activation module computes."""
    x = torch.linspace(-6, 6, 97, dtype=torch.float64)
    try:
        y = act(x)
    except (RuntimeError, TypeError):
        return None
    for name, function in _FUNCTIONS.items():
        if isinstance(y, Tensor) and y.shape == x.shape and torch.allclose(y, function(x), rtol=1e-10, atol=1e-12):
            return name
    return None


def _arrangements(linears: list[nn.Linear], function: str) -> Iterator[Mlp]:
    if len(linears) == 2:
        yield Mlp(linears[0], function, None, linears[1])
        return
    one, two, last = linears
    if all(linear.bias is None for linear in (one, two)):
        for first, other in ((one, two), (two, one)):
            yield Mlp(first, function, other, last)


def _compose(mlp: Mlp, act: nn.Module, x_ND: Tensor) -> Tensor:
    hidden_NF = act(mlp.first(x_ND))
    return mlp.last(hidden_NF if mlp.other is None else hidden_NF * mlp.other(x_ND))  # type: ignore[no-any-return]


def _has_kernel(mlp: Mlp) -> bool:
    weight = mlp.first.weight
    choice = choose_mlp(weight.device, weight.dtype, width=mlp.first.in_features, features=mlp.first.out_features)
    return choice.is_kernel


def fused(mlp: Mlp, own: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """The forward of an MLP by the kernel; by its `own` where a gradient must come back through it."""
    from sparsify_core.kernels import activated_gemm  # needs Triton

    def forward(x: Tensor) -> Tensor:
        if torch.is_grad_enabled() and x.requires_grad:
            return own(x)
        gate = None if mlp.other is None else mlp.other.weight
        x_ND = x.reshape(-1, x.shape[-1]).contiguous()
        hidden_NF = activated_gemm.operation(x_ND, mlp.first.weight, mlp.function, mlp.first.bias, gate)
        last: Tensor = mlp.last(hidden_NF.view(*x.shape[:-1], -1))
        return last

    return forward
