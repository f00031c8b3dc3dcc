"""What the further segments of hot latents add up to, against float64."""

import pytest
import torch

pytest.importorskip("triton", reason="Triton exists for Linux only")

from sparsify_core.kernels.by_latent import SEGMENT, sort_by_latent
from sparsify_core.kernels.further_parts import further_parts
from sparsify_core.kernels.rows import split_width
from sparsify_core.kernels.sparse_grads import COMBINED_ROWS


def test_every_eighth_part_has_the_sum_of_its_eight(device: torch.device) -> None:
    torch.manual_seed(0)
    N, M, D, E, hot = SEGMENT * 10 + 5, 4, 6, 3, 2
    indices = torch.full((N, 1), hot, dtype=torch.int32, device=device)
    x, grad, rows = (torch.randn(n, width, device=device) for n, width in ((N, D), (N, E), (M, E)))
    acts = torch.rand(N, 1, device=device)
    by_latent = sort_by_latent(indices, M)
    (E1, E2), (D1, D2) = split_width(E), split_width(D)
    shape = {"E": E, "E1": E1, "E2": E2, "D": D, "D1": D1, "D2": D2, "LENGTH": SEGMENT, "UNROLL": 2}
    shape |= {"HAS_TOKENS": False, "STRAIGHT_THROUGH": False, "num_warps": 1}
    dec, enc, bias, counts = further_parts(by_latent, (by_latent.order_P, acts, grad, x, rows), 1, shape)
    slope = grad.double() @ rows[hot].double()
    assert len(dec) == 10
    for first in range(0, 10, COMBINED_ROWS):  # segment 0 is the owner's
        own = slice(SEGMENT * (first + 1), SEGMENT * (min(first + COMBINED_ROWS, 10) + 1))
        near = {"rtol": 1e-4, "atol": 1e-4}
        torch.testing.assert_close(dec[first].double(), acts[own, 0].double() @ grad[own].double(), **near)
        torch.testing.assert_close(enc[first].double(), slope[own] @ x[own].double(), **near)
        torch.testing.assert_close(bias[first].double(), slope[own].sum(), **near)
        assert counts[first] == len(slope[own])


def test_without_hot_latents_there_is_nothing(device: torch.device) -> None:
    indices = torch.arange(6, dtype=torch.int32, device=device).view(3, 2)
    by_latent = sort_by_latent(indices, 6)
    rows = torch.zeros(6, 4, device=device)
    parts = further_parts(by_latent, (by_latent.order_P, rows, rows, rows, rows), 2, {"E": 4, "D": 4})
    assert all(len(part) == 0 for part in parts)
