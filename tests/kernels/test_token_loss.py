"""Cross-entropy and KL divergence of logits with their gradients, against autograd in float64."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

pytest.importorskip("triton", reason="Triton exists for Linux only")

from sparsify_core.kernels import reference, token_loss

BOTH = pytest.mark.parametrize("kernels", [reference, token_loss], ids=["reference", "triton"])
TOLERANCE = {torch.float16: 2e-3, torch.bfloat16: 1e-2, torch.float32: 1e-5}


@pytest.fixture(params=list(TOLERANCE), ids=str)
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    return request.param


def logits_of(tokens: int, vocabulary: int, dtype: torch.dtype, device: torch.device, spread: float = 3.0) -> Tensor:
    return (torch.randn(tokens, vocabulary) * spread).to(device, dtype)


@BOTH
@pytest.mark.parametrize(("tokens", "vocabulary"), [(1, 1), (3, 50), (5, 4096), (4, 4097), (2, 10_007)])
def test_cross_entropy(kernels, tokens: int, vocabulary: int, dtype: torch.dtype, device: torch.device) -> None:
    logits = logits_of(tokens, vocabulary, dtype, device)
    targets = torch.randint(vocabulary, (tokens,), device=device)
    targets[tokens // 2 :: 3] = -100
    loss, grad = kernels.cross_entropy(logits, targets)
    wide = logits.double().requires_grad_()
    expected = functional.cross_entropy(wide, targets, reduction="none", ignore_index=-100)
    expected.sum().backward()
    assert loss.dtype == torch.float32
    assert grad.dtype == dtype
    torch.testing.assert_close(loss.double(), expected.detach(), rtol=1e-5, atol=2e-6)
    torch.testing.assert_close(grad.double(), wide.grad, rtol=TOLERANCE[dtype], atol=1e-6)
    assert not grad[targets < 0].any()
    alone = kernels.cross_entropy(logits, targets, needs_gradient=False)
    assert torch.equal(alone[0], loss)
    assert alone[1] is None


@BOTH
@pytest.mark.parametrize(("tokens", "vocabulary"), [(1, 1), (3, 50), (5, 4096), (4, 4097), (2, 10_007)])
def test_kl_divergence(kernels, tokens: int, vocabulary: int, dtype: torch.dtype, device: torch.device) -> None:
    logits, clean = (logits_of(tokens, vocabulary, dtype, device) for _ in range(2))
    before = logits.clone(), clean.clone()
    loss, grad = kernels.kl_divergence(logits, clean)
    wide = logits.double().requires_grad_()
    log_p = clean.double().log_softmax(-1)
    expected = (log_p.exp() * (log_p - wide.log_softmax(-1))).sum(-1)
    expected.sum().backward()
    assert grad.dtype == dtype
    torch.testing.assert_close(loss.double(), expected.detach(), rtol=1e-5, atol=2e-6)
    torch.testing.assert_close(grad.double(), wide.grad, rtol=TOLERANCE[dtype], atol=1e-6)
    assert torch.equal(logits, before[0])
    assert torch.equal(clean, before[1])
    alone = kernels.kl_divergence(logits, clean, needs_gradient=False)
    assert torch.equal(alone[0], loss)
    assert alone[1] is None


@BOTH
def test_divergence_of_equal_logits_is_exactly_zero(kernels, device: torch.device) -> None:
    logits = logits_of(3, 5000, torch.float32, device)
    loss, grad = kernels.kl_divergence(logits, logits.clone())
    assert not loss.any()
    assert not grad.any()


@BOTH
def test_large_and_impossible_logits(kernels, device: torch.device) -> None:
    """Far from zero, where exponentials overflow; and words that can never come."""
    logits = logits_of(4, 5000, torch.float32, device, spread=1e4)
    logits[1] -= 3e4
    logits[2, 10:] = -torch.inf
    targets = logits.argmax(-1)
    loss, grad = kernels.cross_entropy(logits, targets)
    wide = logits.double().requires_grad_()
    expected = functional.cross_entropy(wide, targets, reduction="none")
    expected.sum().backward()
    torch.testing.assert_close(loss.double(), expected.detach(), rtol=1e-5, atol=1e-2)
    torch.testing.assert_close(grad.double(), wide.grad, rtol=1e-2, atol=1e-2)
    assert not grad[2, 10:].any()


@BOTH
def test_what_is_not_a_number_shows(kernels, device: torch.device) -> None:
    logits, clean = (logits_of(2, 5000, torch.float32, device) for _ in range(2))
    logits[1, 4500] = torch.nan
    for loss, grad in (
        kernels.cross_entropy(logits, torch.tensor([1, 2], device=device)),
        kernels.kl_divergence(logits, clean),
        kernels.kl_divergence(clean, logits),
    ):
        assert loss.isnan().tolist() == [False, True]
        assert not grad[0].isnan().any()


def test_wrong_arguments_are_refused() -> None:
    logits, targets = torch.zeros(3, 8), torch.zeros(3, dtype=torch.int64)
    with pytest.raises(ValueError, match="3 int64 targets"):
        token_loss.cross_entropy(logits, targets[:2])
    with pytest.raises(ValueError, match="contiguous bf16, fp16 or fp32 logits"):
        token_loss.cross_entropy(logits.double(), targets)
    with pytest.raises(ValueError, match="contiguous bf16, fp16 or fp32 logits"):
        token_loss.cross_entropy(torch.zeros(8, 3).T, targets)
    with pytest.raises(ValueError, match="contiguous clean logits"):
        token_loss.kl_divergence(logits, torch.zeros(8, 3).T)
