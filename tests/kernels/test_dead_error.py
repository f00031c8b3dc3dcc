"""The AuxK loss by dense products, against the sparse reference in float64 with autograd."""

import pytest
import torch

pytest.importorskip("triton", reason="Triton exists for Linux only")

from sparsify_core.kernels.dead_error import dead_error
from sparsify_core.kernels.keep import keep_largest


@pytest.mark.parametrize("trains_encoder", [True, False])
@pytest.mark.parametrize("is_centred", [True, False])
@pytest.mark.parametrize(("num_dead", "k"), [(1, 1), (40, 7), (60, 60), (300, 12)])
def test_loss_and_gradients(
    num_dead: int, k: int, is_centred: bool, trains_encoder: bool, device: torch.device
) -> None:
    torch.manual_seed(num_dead)
    tokens, latents, width, target = 50, 320, 24, 16
    make = {"device": device, "dtype": torch.float64}
    x, residual = torch.randn(tokens, width, **make).bfloat16(), torch.randn(tokens, target, **make).bfloat16()
    matrices = [torch.randn(latents, size, **make) for size in (width, target)]
    W_enc, W_dec = (matrix.bfloat16().float().requires_grad_() for matrix in matrices)
    b_enc = torch.randn(latents, **make).bfloat16().float().requires_grad_()
    centre = torch.zeros(width, device=device, requires_grad=True) if is_centred and trains_encoder else None
    dead = torch.randperm(latents, device=device)[:num_dead].sort().values
    error = dead_error(
        x,
        centre,
        W_enc if trains_encoder else W_enc.detach(),
        b_enc if trains_encoder else b_enc.detach(),
        W_dec,
        W_enc.detach().bfloat16(),
        W_dec.detach().bfloat16(),
        residual,
        dead,
        k,
    )
    (3 * error).backward()

    exact = [p.detach().double().requires_grad_() for p in (W_enc, b_enc, W_dec)]
    shift = torch.zeros(width, **make, requires_grad=True)
    pre = (x.double() - shift) @ exact[0][dead].T + exact[1][dead]
    # Which ones are kept may hang on the rounding of the pre-activations: let both see the same.
    rounded = torch.nn.functional.linear(x, W_enc.detach()[dead].bfloat16(), b_enc.detach()[dead].bfloat16())
    acts = pre.relu() * (keep_largest(rounded.contiguous(), k, num_dead) > 0)
    expected = (acts @ exact[2][dead] - residual.double()).square().sum()
    (3 * expected).backward()
    torch.testing.assert_close(error.double(), expected.detach(), rtol=2e-2, atol=0)
    assert (W_dec.grad.double() - exact[2].grad).norm() < 0.02 * exact[2].grad.norm()
    alive = torch.ones(latents, dtype=torch.bool, device=device).index_fill(0, dead, False)
    assert not W_dec.grad[alive].any()
    if not trains_encoder:
        assert W_enc.grad is None
        assert b_enc.grad is None
        return
    for own, other in ((W_enc, exact[0]), (b_enc, exact[1])):
        assert (own.grad.double() - other.grad).norm() < 0.02 * other.grad.norm()
    if centre is not None:
        assert (centre.grad.double() - shift.grad).norm() < 0.02 * shift.grad.norm()
