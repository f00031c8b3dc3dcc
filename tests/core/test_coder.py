"""The sparse coder's mathematics, against documented numbers and float64 brute force."""

import pytest
import torch

from sparsify_core.config import SparseCoderConfig
from sparsify_core.model.coder import SparseCoder
from sparsify_core.model.losses import Moments, loss_sums


def coder(**changes: object) -> SparseCoder:
    values = {"num_latents": 128, "k": 8, **changes}
    return SparseCoder(32, SparseCoderConfig(**values))  # type: ignore[arg-type]


def test_initial_weights_are_upstreams() -> None:
    made = coder()
    torch.testing.assert_close(
        made.encoder.weight[0, :3].detach(), torch.tensor([-0.00132350, 0.09483072, -0.14549519]), atol=1e-8, rtol=0
    )
    assert [name for name, _ in made.named_parameters()] == ["W_dec", "b_dec", "encoder.weight", "encoder.bias"]
    rows = made.encoder.weight / (made.encoder.weight.norm(dim=1, keepdim=True) + torch.finfo(torch.float32).eps)
    assert torch.equal(made.W_dec, rows)
    assert not made.encoder.bias.any()
    assert not made.b_dec.any()


def test_initialization_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    coder()
    assert torch.equal(torch.rand(3), expected)


def test_transcoder_starts_at_zero_and_may_change_width() -> None:
    made = SparseCoder(8, SparseCoderConfig(num_latents=16, k=2, transcode=True), d_out=5)
    assert made.W_dec.shape == (16, 5)
    assert not made.W_dec.any()
    out = made(torch.randn(3, 8), torch.randn(3, 5))
    assert out.out_NE.shape == (3, 5)


def dense_forward(made: SparseCoder, x: torch.Tensor) -> torch.Tensor:
    """The definition, with a dense mask."""
    inputs = x if made.is_transcoder else x - made.b_dec
    pre = torch.relu(inputs @ made.encoder.weight.T + made.encoder.bias)
    values, indices = pre.topk(made.k, dim=-1)
    acts = torch.zeros_like(pre).scatter(1, indices, values)
    return acts @ made.W_dec + made.b_dec


@pytest.mark.parametrize("transcode", [False, True])
@pytest.mark.parametrize("bias", [0.0, -0.5])
def test_output_and_gradients_equal_dense_float64(transcode: bool, bias: float) -> None:
    torch.manual_seed(0)
    made = coder(transcode=transcode).double()
    with torch.no_grad():
        made.b_dec.normal_()
        made.W_dec.normal_()
        made.encoder.bias.fill_(bias)
    x = torch.randn(37, 32, dtype=torch.float64, requires_grad=True)
    y = torch.randn(37, 32, dtype=torch.float64)
    params = [x, *made.parameters()]

    fast = made(x, y)
    slow = dense_forward(made, x)
    torch.testing.assert_close(fast.out_NE, slow)
    expected = torch.autograd.grad(((y - slow) ** 2).sum() / ((y - y.mean(0)) ** 2).sum(), params)
    actual = torch.autograd.grad(fast.fvu, params)
    for got, want in zip(actual, expected, strict=True):
        torch.testing.assert_close(got, want)


def test_latents_below_zero_get_no_gradient() -> None:
    made = coder()
    with torch.no_grad():
        made.encoder.bias.fill_(-100.0)
    sums = loss_sums(made, torch.randn(5, 32), torch.randn(5, 32))
    sums.loss.backward()
    assert not sums.latents.acts.any()
    assert not made.encoder.bias.grad.any()


@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_variance_in_parts_equals_float64_of_the_whole(offset: float) -> None:
    torch.manual_seed(0)
    y = torch.randn(100, 6) + offset
    moments = Moments(y[:10].mean(0))
    for part in y.split(17):
        moments.add(part)
    whole = y.double()
    torch.testing.assert_close(moments.variance_sum(), (whole - whole.mean(0)).square().sum(), rtol=1e-6, atol=0)


def test_normalizing_and_parallel_gradient() -> None:
    made = coder()
    with torch.no_grad():
        made.W_dec.mul_(3)
    made.normalize_decoder()
    torch.testing.assert_close(made.W_dec.norm(dim=1), torch.ones(128))
    made.W_dec.grad = torch.randn(128, 32)
    made.remove_parallel_gradient()
    assert (made.W_dec.grad * made.W_dec).sum(1).abs().max() < 1e-5
