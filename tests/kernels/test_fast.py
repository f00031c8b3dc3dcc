"""Each way through the kernels put together, on a CPU as far as Triton's interpreter can go.

Numbers of whole steps are compared in tests/core/test_fast_path.py, on a GPU.
"""

from functools import partial

import pytest
import torch

pytest.importorskip("triton", reason="Triton exists for Linux only")

from launches import Launches
from pre_activations import pre_activations
from sparsify_core.kernels import dispatch, fast, reference

SELECTIONS = {
    "topk": ("topk", 3, 96, 5, ["_select_topk"]),
    "k that topk cannot hold": ("topk", 1, 1100, dispatch.MAX_K + 1, []),
    "latents that topk cannot hold": ("topk", 1, (dispatch.MAX_GROUPS + 1) * dispatch.GROUP, 4, []),
    "groupmax": ("groupmax", 3, 96, 4, ["_select_groupmax"]),
    "batchtopk": ("batchtopk", 3, 96, 5, ["_gather_groups", "_locate"]),
}


@pytest.mark.parametrize("case", SELECTIONS)
def test_each_selection(device: torch.device, launches: Launches, case: str) -> None:
    activation, tokens, latents, k, kernels = SELECTIONS[case]
    pre = pre_activations("random", tokens, latents)
    maxima = reference.group_maxima(pre, dispatch.GROUP)
    indices = fast.select(pre.to(device), maxima.to(device), activation, k)[0]
    choice = dispatch.choose_selection(activation, tokens=tokens, latents=latents, k=k)
    assert choice.is_kernel == bool(kernels)
    assert choice.runs == (activation if kernels else "library topk")
    assert [name for name in launches.names if "digit" not in name and "flag" not in name and "places" not in name] == (
        kernels
    )
    expected = {
        "topk": reference.select_topk,
        "groupmax": reference.select_groupmax,
        "batchtopk": reference.select_batchtopk,
    }[activation](pre, k)
    got = pre.flatten().relu()[indices.cpu()] if activation == "batchtopk" else pre.relu().gather(1, indices.cpu())
    if activation == "batchtopk":
        assert torch.equal(indices.cpu().int(), expected[2])
    else:
        torch.testing.assert_close(got.sort(1).values, expected[0].sort(1).values, rtol=0, atol=0)


def test_a_batch_too_large_for_batchtopk(
    device: torch.device, launches: Launches, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "MAX_CANDIDATES", 300)
    pre = pre_activations("random", 4, 96)
    maxima = reference.group_maxima(pre, dispatch.GROUP)
    indices, tokens, *_ = fast.select(pre.to(device), maxima.to(device), "batchtopk", 5)
    assert launches == []
    _, expected_tokens, expected_latents, _ = reference.select_batchtopk(pre, 5)
    assert torch.equal(tokens.cpu().int(), expected_tokens)
    assert torch.equal(indices.cpu().int(), expected_latents)


@pytest.mark.parametrize(
    ("latents", "width"), [(100, 24), (96, 20), pytest.param(96, 24, marks=pytest.mark.gpu)], ids=str
)
def test_each_encoder(device: torch.device, launches: Launches, latents: int, width: int) -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(5, width).bfloat16(), (torch.randn(latents, width) / 5).bfloat16()
    bias = torch.randn(latents)
    pre, maxima = fast.encode(x.to(device), weight.to(device), bias.to(device))
    choice = dispatch.choose_encoder(device, tokens=5, latents=latents, width=width)
    assert set(launches.names) == {"_encode" if choice.is_kernel else "_group_maxima"}
    expected = x.double() @ weight.double().T + bias.double()
    torch.testing.assert_close(pre.cpu().double(), expected, rtol=1e-2, atol=2e-2)
    assert torch.equal(maxima.cpu(), reference.group_maxima(pre.cpu(), dispatch.GROUP))


@pytest.mark.parametrize("trains_encoder", [False, True])
def test_dead_latents_are_decoded_by_dense_products(
    device: torch.device, launches: Launches, trains_encoder: bool
) -> None:
    torch.manual_seed(0)
    make = partial(torch.randn, device=device)
    x, W_enc, b_enc, W_dec = make(6, 8), make(90, 8), make(90), make(90, 8)
    W_enc.requires_grad_()
    dead = torch.arange(0, 90, 7, device=device)
    decoded = fast.decode_dead(
        x.bfloat16(), W_enc, b_enc, W_dec.requires_grad_(), dead, 3, trains_encoder=trains_encoder
    )
    assert launches.names == ["_keep"]
    pre = (x @ W_enc[dead].T + b_enc[dead]).detach().double().cpu()
    acts, chosen = reference.select_topk(pre, 3)
    expected = torch.einsum("nk,nke->ne", acts, W_dec.detach()[dead].double().cpu()[chosen.long()])
    torch.testing.assert_close(decoded.detach().cpu().double(), expected, rtol=0.1, atol=0.1)
    decoded.sum().backward()
    assert W_dec.grad.any()
    assert (W_enc.grad is not None) == trains_encoder
