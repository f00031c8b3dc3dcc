"""The reference kernels against dense float64."""

import pytest
import torch

from sparsify_core.kernels.reference import gather_latents, scatter_rows, weighted_rows


@pytest.mark.parametrize(("tokens", "active", "latents", "width"), [(1, 1, 1, 1), (7, 1, 13, 5), (33, 6, 17, 9)])
def test_weighted_rows_and_its_transpose(tokens: int, active: int, latents: int, width: int) -> None:
    torch.manual_seed(0)
    indices = torch.randint(latents, (tokens, active))  # repeated indices within a token included
    weights = torch.randn(tokens, active, dtype=torch.float64)
    table = torch.randn(latents, width, dtype=torch.float64)
    rows = torch.randn(tokens, width, dtype=torch.float64)
    dense = torch.zeros(tokens, latents, dtype=torch.float64).scatter_add_(1, indices, weights)
    torch.testing.assert_close(weighted_rows(indices, weights, table), dense @ table)
    torch.testing.assert_close(scatter_rows(indices, weights, rows, latents), dense.T @ rows)


def test_scatter_rows_takes_non_contiguous_input() -> None:
    indices = torch.randint(5, (4, 6)).T
    weights = torch.randn(4, 6).T
    rows = torch.randn(3, 6).T
    dense = torch.zeros(6, 5).scatter_add_(1, indices, weights)
    torch.testing.assert_close(scatter_rows(indices, weights, rows, 5), dense.T @ rows)


def test_gather_latents_gradcheck() -> None:
    torch.manual_seed(0)
    x = torch.randn(6, 4, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(9, 4, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(9, dtype=torch.float64, requires_grad=True)
    indices = torch.stack([torch.randperm(9)[:3] for _ in range(6)])

    def run(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        pre = (x @ weight.T + bias).detach()
        return gather_latents(x, weight, bias, pre, indices)

    assert torch.autograd.gradcheck(run, (x, weight, bias))
