"""The reference kernels against dense float64."""

from collections.abc import Iterator

import pytest
import torch

from runs import DEVICE
from sparsify_core.kernels.reference import gather_latents, scatter_rows, scatter_sums, starts, weighted_rows


@pytest.fixture(autouse=True)
def device() -> Iterator[None]:
    with torch.device(DEVICE):
        yield


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
    torch.testing.assert_close(scatter_sums(indices, weights, latents), dense.sum(0))


def test_sums_come_out_the_same_each_time() -> None:
    torch.manual_seed(0)
    indices, weights = torch.randint(40, (3000, 32)), torch.randn(3000, 32)
    first = scatter_sums(indices, weights, 40)
    assert all(torch.equal(scatter_sums(indices, weights, 40), first) for _ in range(5))


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


def test_list_of_entries_equals_dense() -> None:
    """Tokens without an entry, and latents without one, included."""
    torch.manual_seed(0)
    dense = torch.randn(7, 9, dtype=torch.float64) * (torch.rand(7, 9) < 0.3)
    dense[0] = dense[6] = dense[3] = 0
    tokens, indices = dense.nonzero(as_tuple=True)
    weights = dense[tokens, indices]
    table, rows = torch.randn(9, 5, dtype=torch.float64), torch.randn(7, 5, dtype=torch.float64)
    torch.testing.assert_close(weighted_rows(indices, weights, table, starts(tokens, 7)), dense @ table)
    torch.testing.assert_close(scatter_rows(indices, weights, rows, 9, tokens), dense.T @ rows)


def test_empty_list_gives_zeros() -> None:
    none = torch.zeros(0, dtype=torch.int64)
    out = weighted_rows(none, torch.zeros(0), torch.ones(4, 3), starts(none, 5))
    assert torch.equal(out, torch.zeros(5, 3))


@pytest.mark.parametrize("straight_through", [False, True])
def test_gradient_of_what_the_relu_cut_off(straight_through: bool) -> None:
    x, weight = torch.ones(1, 2), torch.tensor([[1.0, 1.0], [-1.0, -1.0]], requires_grad=True)
    pre = (x @ weight.T).detach()
    bias = torch.zeros(2, requires_grad=True)
    gather_latents(x, weight, bias, pre, torch.tensor([[0, 1]]), straight_through=straight_through).sum().backward()
    assert bias.grad.tolist() == [1.0, float(straight_through)]
    assert weight.grad[1].tolist() == [float(straight_through)] * 2
