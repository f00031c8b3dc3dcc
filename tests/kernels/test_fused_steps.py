"""The optimizer's fused steps, and the rounded weights that they leave for the next step's products."""

import pytest
import torch

pytest.importorskip("triton")

from sparsify_core.config import RunConfig, SparseCoderConfig
from sparsify_core.kernels import dispatch
from sparsify_core.model.coder import SparseCoder
from sparsify_core.train.finish import StepEnd
from sparsify_core.train.optim import CoderOptimizer
from sparsify_core.train.step import StepSums, has_one_selection
from sparsify_core.train.units import Unit

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def _two_coders(optimizer: str, *, trains_fast: bool) -> tuple[dict[str, SparseCoder], CoderOptimizer]:
    config = RunConfig(optimizer=optimizer, lr=0.01, lr_warmup_steps=2)
    coders = {}
    for seed, name in enumerate(["a", "b"]):
        coders[name] = SparseCoder(24, SparseCoderConfig(num_latents=9, k=2), seed=seed).to(DEVICE)
        coders[name].trains_fast = trains_fast
    return coders, CoderOptimizer(config, coders, 10)


def _step(coders: dict[str, SparseCoder], optimizer: CoderOptimizer, step: int) -> None:
    for name, coder in coders.items():
        torch.manual_seed(step)
        for p in coder.parameters():
            p.grad = torch.randn_like(p)
        optimizer.step(step, name, torch.tensor(0.5, device=DEVICE))
        assert all(p.grad is None for p in coder.parameters())


def _expect_fresh(coder: SparseCoder) -> None:
    for p in (coder.W_dec, coder.encoder.weight):
        # The interpreter cuts digits off where the GPU rounds.
        torch.testing.assert_close(coder.in_bfloat16(p).float(), p.detach(), rtol=2**-7, atol=0)


@pytest.mark.parametrize("optimizer", ["signum", "adam"])
def test_steps_of_several_coders_are_those_of_the_reference(optimizer: str) -> None:
    fused, exact = (_two_coders(optimizer, trains_fast=trains_fast) for trains_fast in (True, False))
    for step in range(4):
        for coders, own in (fused, exact):
            _step(coders, own, step)
    for name, coder in fused[0].items():
        for p, q in zip(coder.parameters(), exact[0][name].parameters(), strict=True):
            torch.testing.assert_close(p, q, rtol=2e-6, atol=2e-7)
    assert fused[1].scalars() == exact[1].scalars()


@pytest.mark.parametrize("optimizer", ["signum", "adam"])
def test_rounded_weights_follow_the_weights(optimizer: str) -> None:
    coders, own = _two_coders(optimizer, trains_fast=True)
    first_tensors, first_scalars = own.tensors(), own.scalars()
    for step in range(3):
        _step(coders, own, step)
        assert all(len(coder.rounded) == 2 for coder in coders.values())
        for coder in coders.values():
            _expect_fresh(coder)
    before = {name: coder.W_dec.detach().clone() for name, coder in coders.items()}
    with own.deployed_weights():
        for coder in coders.values():
            _expect_fresh(coder)
    for name, coder in coders.items():
        assert torch.equal(coder.W_dec, before[name])
        _expect_fresh(coder)
    _step(coders, own, 3)
    weights = {f"a/{key}": torch.randn_like(p) for key, p in coders["a"].named_parameters()}
    own.restore(first_tensors, weights, first_scalars)
    _expect_fresh(coders["a"])
    own.go_to_training_point()
    _expect_fresh(coders["a"])


@pytest.mark.parametrize(
    ("optimizer", "transcode", "activation"),
    [("signum", False, "topk"), ("adam", True, "topk"), ("adam", False, "batchtopk"), ("signum", True, "batchtopk")],
)
def test_a_step_without_gradients_is_the_step(
    optimizer: str, transcode: bool, activation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "UPDATE_AT_ONCE_FROM_BYTES", 0)
    sae = SparseCoderConfig(num_latents=32, k=3, transcode=transcode, activation=activation)
    config = RunConfig(sae=sae, optimizer=optimizer, lr=0.01, lr_warmup_steps=1)
    units, optimizers = [], []
    for _ in range(2):
        coder = SparseCoder(24, sae, d_out=16 if transcode else 24).to(DEVICE)
        coder.trains_fast = True
        units.append(Unit("layers.0", "layers.0", coder, torch.zeros(32, dtype=torch.int64, device=DEVICE)))
        optimizers.append(CoderOptimizer(config, {"layers.0": coder}, 10))
        assert has_one_selection(config, coder)
        assert optimizers[-1].steps_at_once("layers.0")
    stats: list[list[torch.Tensor]] = [[], []]
    fired: list[list[torch.Tensor]] = [[], []]
    for step in range(2):
        torch.manual_seed(step)
        x = torch.randn(16, 24, device=DEVICE).bfloat16()
        y = torch.randn(16, 16, device=DEVICE).bfloat16() if transcode else x
        for i, (unit, own) in enumerate(zip(units, optimizers, strict=True)):
            sums = StepSums(unit, config, keeps_entries=i == 0)
            sums.add(x, y)
            assert (sums.entries is None) == (i == 1)
            end = StepEnd({"layers.0": sums}, own, None, step)
            end.complete("layers.0")
            assert all(p.grad is None for p in unit.coder.parameters())
            stats[i].append(end.finish())
            fired[i].append(sums.fired_M)
        for (name, p), q in zip(units[0].coder.named_parameters(), units[1].coder.parameters(), strict=True):
            # Where a gradient is 0 up to rounding, signum's step has either sign.
            off = (p - q).abs() > 1e-4 * q.abs() + 1e-6
            assert off.double().mean() < (0.02 if name != "b_dec" else 0.1), (name, step)
        assert step or (fired[0][0].any() and torch.equal(fired[0][0], fired[1][0]))
        torch.testing.assert_close(stats[0][-1], stats[1][-1], rtol=1e-3, atol=1e-6, equal_nan=True)


@pytest.mark.parametrize("transcode", [False, True])
def test_muon_in_fewer_passes_is_the_step(transcode: bool) -> None:
    sae = SparseCoderConfig(num_latents=40, k=3, transcode=transcode)
    config = RunConfig(sae=sae, optimizer="muon", lr=0.01, lr_warmup_steps=1)
    coders, optimizers = [], []
    for trains_fast in (True, False):
        coders.append(SparseCoder(24, sae).to(DEVICE))
        coders[-1].trains_fast = trains_fast
        optimizers.append(CoderOptimizer(config, {"a": coders[-1]}, 10))
        assert not optimizers[-1].steps_at_once("a")
    for step in range(3):
        for coder, own in zip(coders, optimizers, strict=True):
            before = coder.W_dec.detach().clone()
            _step({"a": coder}, own, step)
            assert not torch.equal(coder.W_dec, before)
    for (name, p), q in zip(coders[0].named_parameters(), coders[1].parameters(), strict=True):
        # The kernel rounds what is made orthogonal to bfloat16, as CUDA does anyway.
        torch.testing.assert_close(p, q, rtol=0, atol=2e-3 if p.dim() == 2 else 1e-6, msg=name)
    theirs = optimizers[1].tensors()
    for key, own in optimizers[0].tensors().items():
        torch.testing.assert_close(own, theirs[key], rtol=1e-2, atol=1e-3)
