"""Each way through the kernels put together, on a CPU as far as Triton's interpreter can go.

Numbers of whole steps are compared in tests/core/test_fast_path.py, on a GPU.
"""

import pytest
import torch

pytest.importorskip("triton", reason="Triton exists for Linux only")

from launches import Launches
from pre_activations import pre_activations
from sparsify_core.config import SparseCoderConfig
from sparsify_core.kernels import dispatch, fast, reference
from sparsify_core.model.coder import SparseCoder
from sparsify_core.model.losses import loss_sums

SELECTIONS = {
    "topk": ("topk", 3, 96, 5, ["_select_topk"]),
    "k that topk cannot hold": ("topk", 1, 1100, dispatch.MAX_K + 1, []),
    "latents that topk cannot hold": ("topk", 1, (dispatch.MAX_GROUPS + 1) * dispatch.GROUP, 4, []),
    "groupmax": ("groupmax", 3, 96, 4, ["_select_groupmax"]),
    "groupmax of whole groups": ("groupmax", 3, 96, 3, ["_select_from_maxima"]),
    "batchtopk": ("batchtopk", 3, 96, 5, ["_gather_groups", "_locate"]),
}
REFERENCES = {
    "topk": reference.select_topk,
    "groupmax": reference.select_groupmax,
    "batchtopk": reference.select_batchtopk,
}


@pytest.mark.parametrize("case", SELECTIONS)
def test_each_selection(device: torch.device, launches: Launches, case: str) -> None:
    activation, tokens, latents, k, kernels = SELECTIONS[case]
    pre = pre_activations("random", tokens, latents)
    maxima = reference.group_maxima(pre, dispatch.GROUP)
    indices, _, acts = fast.select(pre.to(device), maxima.to(device), activation, k)
    assert set(launches.names) >= set(kernels)
    assert bool(launches) == bool(kernels)
    choice = dispatch.choose_selection(activation, tokens=tokens, latents=latents, k=k)
    assert (choice.is_kernel, choice.runs) == (bool(kernels), activation if kernels else "library topk")
    expected = REFERENCES[activation](pre, k)
    assert indices.shape == acts.shape == expected[0].shape
    torch.testing.assert_close(acts.cpu().sort().values, expected[0].sort().values, rtol=0, atol=0)
    if activation != "batchtopk":
        assert torch.equal(pre.relu().gather(1, indices.cpu().long()), acts.cpu())


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


@pytest.mark.parametrize("activation", ["topk", "batchtopk"])
@pytest.mark.parametrize("trains_fast", [False, True])
def test_firing_is_counted_over_batches(device: torch.device, trains_fast: bool, activation: str) -> None:
    torch.manual_seed(0)
    coder = SparseCoder(24, SparseCoderConfig(num_latents=64, k=5, activation=activation)).to(device)
    coder.encoder.bias.data -= 1.0  # some of the chosen are not positive
    coder.trains_fast = trains_fast
    fired, expected = (torch.zeros(64, dtype=torch.int32, device=device) for _ in range(2))
    has_silent = False
    for _ in range(2):
        x = torch.randn(10, 24, device=device)
        sums = loss_sums(coder, x, x, multi_topk=activation == "topk", fired_M=fired)
        sums.loss.backward()
        acts = sums.latents.acts.flatten()
        expected.index_add_(0, sums.latents.indices.flatten(), (acts > 0).int())
        has_silent |= bool((acts == 0).any())
    assert has_silent
    assert torch.equal(fired, expected)
