"""The squared errors with their gradients against autograd in float64, in Triton's interpreter without a GPU."""

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton", reason="Triton exists for Linux only")

from launches import Launches
from sparsify_core.config import SparseCoderConfig
from sparsify_core.kernels.squared_error import Weights, nested_error, squared_error
from sparsify_core.model.coder import SparseCoder
from sparsify_core.model.encoding import encode, nested_errors, select_largest
from sparsify_core.model.encoding import squared_error as coder_error
from sparsify_core.model.losses import loss_sums

LATENTS, WIDTH, OUT = 16, 12, 9


def weights(device: torch.device) -> Weights:
    """Numbers that bfloat16 has."""
    torch.manual_seed(0)
    sizes = ((WIDTH,), (LATENTS, WIDTH), (LATENTS,), (LATENTS, OUT), (OUT,))
    return Weights(*(torch.randn(size).bfloat16().float().to(device).requires_grad_() for size in sizes))


def entries(device: torch.device, tokens: int, k: int, own: Weights) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Target, encoder input, and the activations of k latents per token, some of them cut off."""
    x = torch.randn(tokens, WIDTH, device=device).bfloat16()
    target = torch.randn(tokens, OUT, device=device)
    indices = torch.stack([torch.randperm(LATENTS, device=device)[:k] for _ in range(tokens)]).int()
    pre = x.double() @ own.W_enc_MD.double().T + own.b_enc_M.double()
    return target, x, pre.relu().gather(1, indices.long()).float(), indices


def exact_error(own: Weights, target: Tensor, x: Tensor, indices: Tensor) -> Tensor:
    pre = (x.double() - (own.centre_D - own.centre_D.detach())) @ own.W_enc_MD.T + own.b_enc_M
    code = torch.zeros_like(pre).scatter(1, indices.long(), pre.relu().gather(1, indices.long()))
    return (target.double() - code @ own.W_dec_ME - own.b_dec_E).square().sum()


def expect_near(own: Weights, exact: Weights) -> None:
    for name, p, q in zip(own._fields, own, exact, strict=True):
        assert (p.grad.double() - q.grad).norm() < 0.01 * q.grad.norm(), name


@pytest.mark.parametrize("k", [1, 5])
def test_one_error(device: torch.device, k: int) -> None:
    own = weights(device)
    exact = Weights(*(p.detach().double().requires_grad_() for p in own))
    target, x, acts, indices = entries(device, 12, k, own)
    low = own.W_dec_ME.detach().bfloat16()
    error, residual = squared_error(own, target, x, low, acts, indices, None, straight_through=False)
    (3 * error).backward()
    expected = exact_error(exact, target, x, indices)
    (3 * expected).backward()
    torch.testing.assert_close(error.double(), expected.detach(), rtol=1e-4, atol=0)
    torch.testing.assert_close(residual.double().square().sum(), expected.detach(), rtol=1e-2, atol=0)
    expect_near(own, exact)


@pytest.mark.parametrize(("first", "k"), [(1, 1), (1, 4), (3, 13), (5, 5)])
def test_nested_errors(device: torch.device, launches: Launches, first: int, k: int) -> None:
    own = weights(device)
    exact = Weights(*(p.detach().double().requires_grad_() for p in own))
    target, x, acts, indices = entries(device, 12, k, own)
    low = own.W_dec_ME.detach().bfloat16()
    loss, errors, residual = nested_error(own, target, x, low, acts, indices, first=first, weight=0.125)
    (3 * loss).backward()
    both = [exact_error(exact, target, x, chosen) for chosen in (indices[:, :first], indices)]
    (3 * (both[0] + 0.125 * both[1])).backward()
    torch.testing.assert_close(errors.double(), torch.stack(both).detach(), rtol=1e-4, atol=0)
    torch.testing.assert_close(loss.double(), errors.double()[0] + 0.125 * errors.double()[1])
    torch.testing.assert_close(residual.double().square().sum(), both[0].detach(), rtol=1e-2, atol=0)
    expect_near(own, exact)
    assert launches.names[:2] == ["_decode_nested", "_decoder_kernel"]


def test_frozen_weights_get_no_gradient(device: torch.device) -> None:
    own = weights(device)
    target, x, acts, indices = entries(device, 6, 4, own)
    frozen = own._replace(centre_D=None, W_enc_MD=own.W_enc_MD.detach(), b_enc_M=own.b_enc_M.detach())
    target.requires_grad_()
    low = own.W_dec_ME.detach().bfloat16()
    nested_error(frozen, target, x, low, acts, indices, first=2, weight=0.5)[0].backward()
    assert own.W_enc_MD.grad is None
    torch.testing.assert_close(target.grad.sum(0), -own.b_dec_E.grad, rtol=1e-2, atol=1e-2)


def fast_coder(device: torch.device, **values: object) -> SparseCoder:
    config = SparseCoderConfig(**{"num_latents": 64, "k": 2, "multi_topk": True, **values})
    coder = SparseCoder(WIDTH, config).to(device)
    coder.trains_fast = True
    return coder


def test_multi_topk_takes_one_pass(device: torch.device, launches: Launches) -> None:
    """The numbers are those of two selections, each with its own error and gradients."""
    torch.manual_seed(1)
    coder, x = fast_coder(device), torch.randn(12, WIDTH, device=device)
    sums = loss_sums(coder, x, x, multi_topk=True)
    sums.loss.backward()
    assert launches.names.count("_decode_nested") == 1
    assert "_select_topk" in launches.names
    assert "_decode" not in launches.names
    got = [p.grad for p in coder.parameters()]
    coder.zero_grad()
    encoding = encode(coder, x)
    errors = [coder_error(coder, encoding, select_largest(encoding, k), x) for k in (2, 8)]
    (errors[0][0] + errors[1][0] / 8).backward()
    torch.testing.assert_close(torch.stack([sums.error, sums.multi_topk]), torch.stack([e[0].detach() for e in errors]))
    assert torch.equal(sums.latents.indices, errors[0][2].indices)
    assert torch.equal(sums.latents.acts, errors[0][2].acts)
    for grad, p in zip(got, coder.parameters(), strict=True):
        assert (grad - p.grad).norm() < 0.01 * p.grad.norm()


def test_where_one_pass_does_not_do(device: torch.device) -> None:
    x = torch.randn(4, WIDTH, device=device)
    groupmax, upstream = fast_coder(device, activation="groupmax"), fast_coder(device)
    upstream.straight_through = True  # its encoder learns from one of the errors alone
    for coder in (groupmax, upstream):
        assert nested_errors(coder, encode(coder, x), x, 8, 0.125) is None
