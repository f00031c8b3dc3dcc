"""Optimizers and schedules against their formulas."""

import pytest
import torch

from sparsify_core.train import muon
from sparsify_core.train.muon import Muon, iterate, iterate_on_gram, orthogonalize
from sparsify_core.train.optim import SignSGD
from sparsify_core.train.schedule import decayed_k, default_lr, lr_factor


def test_lr_rises_linearly_then_falls_to_the_end() -> None:
    factors = [lr_factor(step, 10, 2) for step in range(10)]
    assert factors[:3] == [0.5, 1.0, 1.0]
    assert factors[2:] == pytest.approx([1 - i / 8 for i in range(8)])
    assert all(factor > 0 for factor in [*factors, *(lr_factor(s, 5, 1000) for s in range(5))])


def test_default_rates_are_upstreams() -> None:
    assert default_lr("adam", 2**14) == pytest.approx(2e-4)
    assert default_lr("signum", 2**16) == pytest.approx(2.5e-3)
    assert default_lr("muon", 2**16) == pytest.approx(2e-3)


def test_k_falls_from_ten_widths() -> None:
    ks = [decayed_k(b, k=8, width=10, num_latents=1000, decay_batches=4) for b in range(6)]
    assert ks == [100, 77, 54, 31, 8, 8]


def test_sign_sgd() -> None:
    p = torch.tensor([1.0, 2.0, 3.0], requires_grad=True)
    p.grad = torch.tensor([5.0, -0.1, 0.0])
    SignSGD([{"params": [p], "lr": 0.5}]).step()
    assert p.tolist() == [0.5, 2.5, 3.0]


@pytest.mark.parametrize("shape", [(8, 20), (20, 8), (8, 8)])
def test_orthogonalized_singular_values_are_near_one(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    values = torch.linalg.svdvals(orthogonalize(torch.randn(shape) * 100))
    assert values.min() > 0.3
    assert values.max() < 1.3


def _with_singular_values(values: torch.Tensor, length: int) -> torch.Tensor:
    """A float64 matrix with these singular values and Frobenius norm 1."""
    left, right = (torch.linalg.qr(torch.randn(n, len(values), dtype=torch.float64)).Q for n in (len(values), length))
    return left @ torch.diag(values / values.norm()) @ right.T


@pytest.mark.parametrize("in_pairs", [False, True])
@pytest.mark.parametrize("lowest", [1.0, 1e-2, 1e-4])
def test_gram_iterations_keep_the_singular_values(
    lowest: float, in_pairs: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if in_pairs:
        monkeypatch.setattr(muon, "_MAX_FLOAT32", 0)
    torch.manual_seed(0)
    values = torch.logspace(0, torch.tensor(lowest).log10(), 48, dtype=torch.float64)
    matrix = _with_singular_values(values, 800)
    expected = torch.linalg.svdvals(iterate(matrix))
    torch.testing.assert_close(
        torch.linalg.svdvals(iterate_on_gram(matrix.float()).double()), expected, rtol=0, atol=2e-4
    )
    long, tall = orthogonalize(matrix.float()), orthogonalize(7 * matrix.T.float())
    torch.testing.assert_close(torch.linalg.svdvals(long.double()), expected, rtol=0, atol=2e-4)
    torch.testing.assert_close(tall, long.T, rtol=0, atol=2e-4)

    # From bfloat16, as on CUDA: nearer to the exact iteration of the same input than bfloat16 throughout.
    rounded = matrix.bfloat16()
    exact = iterate(rounded.double())
    error, plain_error = ((result.double() - exact).norm() for result in (iterate_on_gram(rounded), iterate(rounded)))
    assert error < 0.02 * exact.norm()
    assert error < plain_error / 2


def test_muon_step() -> None:
    torch.manual_seed(0)
    p = torch.randn(6, 4, requires_grad=True)
    before, gradient = p.detach().clone(), torch.randn(6, 4)
    p.grad = gradient
    Muon([{"params": [p], "lr": 0.1}]).step()
    direction = orthogonalize(gradient.lerp(0.05 * gradient, 0.95))
    torch.testing.assert_close(p.detach(), before * (1 - 0.1 * 0.1) - 0.1 * 0.2 * 6**0.5 * direction)
