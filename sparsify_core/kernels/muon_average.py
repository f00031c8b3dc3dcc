"""How muon takes in a gradient, in one pass over its memory, in Triton. The rest of its step are matrix products."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from sparsify_core.kernels.rows import load_row, store_row
from sparsify_core.kernels.update import check_parameter, lerp, load_scaled, row_options, tangent


@triton.jit
def _average_rows_kernel(
    average_RW, grad_RW, unit_RW, ahead_RW, scale, MOMENTUM: tl.constexpr, TANGENT: tl.constexpr,
    WIDTH: tl.constexpr, FIRST: tl.constexpr, SECOND: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    g1, g2 = load_scaled(grad_RW, row, scale, WIDTH, FIRST, SECOND)
    if TANGENT:
        u1, u2 = load_row(unit_RW, row, True, WIDTH, FIRST, SECOND)
        g1, g2 = tangent(u1, u2, g1, g2)
    a1, a2 = load_row(average_RW, row, True, WIDTH, FIRST, SECOND)
    a1 = lerp(a1, g1, 1.0 - MOMENTUM)
    a2 = lerp(a2, g2, 1.0 - MOMENTUM)
    store_row(average_RW, row, a1, a2, WIDTH, FIRST, SECOND)
    store_row(ahead_RW, row, lerp(g1, a1, MOMENTUM), lerp(g2, a2, MOMENTUM), WIDTH, FIRST, SECOND)


def muon_average(
    average_RW: Tensor, grad_RW: Tensor, *, scale: Tensor, momentum: float, unit_RW: Tensor | None = None
) -> Tensor:
    """Take a matrix's gradient into its average, in place; returns what Nesterov's rule makes of the two, in bfloat16.

    average <- momentum * average + (1 - momentum) * grad;  ahead = momentum * average + (1 - momentum) * grad.

    Args:
        average_RW, grad_RW: float32, contiguous, of one shape.
        scale: float32 scalar on the device that multiplies the gradient.
        unit_RW: weights of unit rows, along which the gradient is ignored; None: of no such weights.

    Raises:
        ValueError: shapes, types or memory layouts that do not fit.
    """
    tensors = [average_RW, grad_RW, *([] if unit_RW is None else [unit_RW])]
    check_parameter(tensors, scale, normalize=True, copy=None)
    ahead_RW = torch.empty_like(average_RW, dtype=torch.bfloat16)
    _average_rows_kernel[(len(average_RW),)](
        average_RW, grad_RW, average_RW if unit_RW is None else unit_RW, ahead_RW, scale,
        MOMENTUM=momentum, TANGENT=unit_RW is not None, **row_options(average_RW),
    )  # fmt: skip
    return ahead_RW
