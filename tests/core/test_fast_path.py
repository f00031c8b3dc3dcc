"""Training on CUDA by the Triton kernels, against the reference in float64 of what they were given in bfloat16."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from runs import TrainFunction
from sparsify_core.config import SparseCoderConfig
from sparsify_core.model.coder import SparseCoder
from sparsify_core.model.encoding import decode, encode, select
from sparsify_core.model.losses import loss_sums

CASES: dict[str, dict[str, Any]] = {
    "topk": {},
    "transcoder": {"transcode": True, "skip_connection": True},
    "groupmax": {"activation": "groupmax"},
    "batchtopk": {"activation": "batchtopk"},
    "odd widths": {"d_in": 70, "num_latents": 301, "k": 7},
    "other target width": {"transcode": True, "d_out": 96},
    "few positive": {"bias": -3.0},
}
TOKENS = 300


def coder_and_rows(
    case: str, *, straight_through: bool = False, dtype: torch.dtype = torch.float32
) -> tuple[SparseCoder, Tensor, Tensor]:
    """A coder whose weights are bfloat16 numbers, so that rounding them changes nothing."""
    values = {"d_in": 72, "num_latents": 512, "k": 16, "bias": 0.0, **CASES[case]}
    d_in, d_out, bias = values.pop("d_in"), values.pop("d_out", None), values.pop("bias")
    torch.manual_seed(0)
    coder = SparseCoder(d_in, SparseCoderConfig(**values), d_out=d_out)
    with torch.no_grad():
        for p in coder.parameters():
            p.copy_((torch.randn_like(p) / 4).bfloat16())
        coder.encoder.bias.add_(bias)
        coder.b_dec.zero_()  # x - b_dec is rounded, and must be the same for both
    coder.straight_through = straight_through
    x = torch.randn(TOKENS, d_in).bfloat16().float()
    y = torch.randn(TOKENS, coder.d_out)
    return coder.to("cuda", dtype), x.to("cuda", dtype), y.to("cuda", dtype)


@pytest.mark.gpu
@pytest.mark.parametrize("straight_through", [False, True])
@pytest.mark.parametrize("losses", [{}, {"auxk_alpha": 0.5}, {"multi_topk": True}], ids=["fvu", "auxk", "multi_topk"])
@pytest.mark.parametrize("case", CASES)
def test_losses_and_gradients_are_the_references(case: str, losses: dict[str, Any], straight_through: bool) -> None:
    if case == "batchtopk" and losses.get("multi_topk"):
        pytest.skip("refused by the configuration")
    dead = torch.arange(0, 300, 3, device="cuda") if losses.get("auxk_alpha") else None
    fast, x, y = coder_and_rows(case, straight_through=straight_through)
    fast.trains_fast = True
    got = loss_sums(fast, x, y, dead_C=dead, **losses)
    got.loss.backward()
    exact, x, y = coder_and_rows(case, straight_through=straight_through, dtype=torch.float64)
    # Which latents are chosen may hang on how pre-activations are rounded: let both see the same.
    rounded = encode(fast, x.float()).pre_NM.double()
    exact.pre_activations = lambda _x: rounded  # type: ignore[method-assign]
    expected = loss_sums(exact, x, y, dead_C=dead, **losses)
    expected.loss.backward()
    for name in ("error", "auxk", "multi_topk"):
        torch.testing.assert_close(getattr(got, name).double(), getattr(expected, name), rtol=1e-2, atol=1e-3)
    for (name, p), q in zip(fast.named_parameters(), exact.parameters(), strict=True):
        difference = (p.grad.double() - q.grad).norm() / q.grad.norm().clamp(min=1e-9)
        # Equal pre-activations are frequent in bfloat16, and the two may choose another of them.
        assert difference < 0.03, (name, float(difference))


@pytest.mark.gpu
def test_gradient_reaches_an_input_that_has_a_graph() -> None:
    gradients = []
    for dtype, is_fast in ((torch.float32, True), (torch.float64, False)):
        coder, x, _ = coder_and_rows("topk", dtype=dtype)
        coder.trains_fast = is_fast
        x.requires_grad_()
        encoding = encode(coder, x)
        coder.complete(x, decode(coder, encoding, select(coder, encoding))[0]).square().sum().backward()
        gradients.append((x.grad.double(), coder.b_dec.grad.double()))
    for got, expected in zip(*gradients, strict=True):
        assert (got - expected).norm() / expected.norm() < 0.1


@pytest.mark.gpu
@pytest.mark.parametrize(
    "changes", [{}, {"optimizer": "signum", "lr": 0.003}, {"activation": "batchtopk"}, {"loss_fn": "kl"}]
)
def test_runs_learn_as_in_float32(train: TrainFunction, changes: dict[str, Any]) -> None:
    common = {"device": "cuda", "max_tokens": 5120, **changes}
    key = "kl_loss" if changes.get("loss_fn") == "kl" else "fvu/layers.0"
    exact = train("float32", coder_dtype="float32", **common).series(key)
    fast = train("bfloat16", coder_dtype="bfloat16", **common).series(key)
    assert fast[0] == pytest.approx(exact[0], rel=0.02)
    assert np.mean(fast[-10:]) == pytest.approx(np.mean(exact[-10:]), rel=0.1)


@pytest.mark.gpu
def test_the_same_run_gives_the_same_bits(train: TrainFunction) -> None:
    changes = {"device": "cuda", "coder_dtype": "bfloat16", "compile_model": "on", "auxk_alpha": 0.1}
    first, second = (train(name, **changes).weights(10) for name in ("first", "second"))
    assert all(torch.equal(first[name], tensor) for name, tensor in second.items())


@pytest.mark.skipif(torch.cuda.is_available(), reason="about machines without CUDA")
def test_bfloat16_without_cuda_is_refused(train: TrainFunction) -> None:
    last = train(coder_dtype="bfloat16").events()[-1]
    assert last.reason_code == "config_error"
    assert (
        "coder_dtype = bfloat16 needs CUDA that computes in it, but the device is cpu, not cuda: use auto"
        in last.message
    )
