"""What the further segments of hot latents add up to, against float64."""

import pytest
import torch

pytest.importorskip("triton", reason="Triton exists for Linux only")

from sparsify_core.kernels.by_latent import SEGMENT, sort_by_latent
from sparsify_core.kernels.further_parts import EntryTensors, further_parts
from sparsify_core.kernels.sparse_grads import COMBINED_ROWS


def test_every_eighth_part_has_the_sum_of_its_eight(device: torch.device) -> None:
    torch.manual_seed(0)
    N, M, D, E, hot = SEGMENT * 10 + 5, 4, 6, 3, 2
    indices = torch.full((N, 1), hot, dtype=torch.int32, device=device)
    x, grad, rows = (torch.randn(n, width, device=device) for n, width in ((N, D), (N, E), (M, E)))
    acts = torch.rand(N, 1, device=device)
    by_latent = sort_by_latent(indices, M)
    entries = EntryTensors(
        by_latent.order_P, acts, grad, x, rows, torch.full_like(acts, 7.0), active=1, has_tokens=False
    )
    dec, enc, bias, counts = further_parts(by_latent, entries, straight_through=False)
    slope = grad.double() @ rows[hot].double()
    assert len(dec) == 10
    torch.testing.assert_close(entries.slopes[SEGMENT:, 0].double(), slope[SEGMENT:], rtol=1e-4, atol=1e-4)
    assert (entries.slopes[:SEGMENT] == 7).all()
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
    entries = EntryTensors(by_latent.order_P, rows, rows, rows, rows, rows, active=2, has_tokens=False)
    parts = further_parts(by_latent, entries, straight_through=False)
    assert all(len(part) == 0 for part in parts)
