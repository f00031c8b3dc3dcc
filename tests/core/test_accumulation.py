"""However a batch is cut, the gradient is that of one big batch, whatever the coder and the losses."""

from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

from sparsify_core.config import RunConfig
from sparsify_core.train.optim import scale_gradients
from sparsify_core.train.placement import place
from sparsify_core.train.step import StepSums
from sparsify_core.train.units import Unit, build_units

ACTIVATIONS = ["topk", "groupmax", "batchtopk"]
CODERS = {"sae": {}, "transcoder": {"transcode": True}, "skip transcoder": {"transcode": True, "skip_connection": True}}
LOSSES = {"fvu": {}, "auxk": {"auxk_alpha": 0.5, "dead_feature_threshold": 10}, "multi_topk": {"multi_topk": True}}
CUTS = {"micro": (60, 4), "grad": (15, 1), "both": (20, 3)}
"""Tokens per batch and chunks of it."""

CASES = [
    (activation, kind, loss, cut)
    for activation, kind, loss, cut in product(ACTIVATIONS, CODERS, LOSSES, CUTS)
    # BatchTopK shares its latents within a batch, so other batches select others; with multi_topk it is refused.
    if activation != "batchtopk" or (loss != "multi_topk" and cut == "micro")
]


def config_of(**changes: Any) -> RunConfig:
    names = ("activation", "transcode", "skip_connection", "multi_topk")
    sae = {"num_latents": 48, "k": 4} | {name: changes.pop(name) for name in names if name in changes}
    return RunConfig.model_validate({"sae": sae, **changes})


def unit_of(config: RunConfig) -> Unit:
    (unit,) = build_units(config, place(config, {"h": (12, 12)}, ["h"], 1).coders, torch.device("cpu"))
    torch.manual_seed(1)
    with torch.no_grad():
        for p in unit.coder.parameters():
            p.normal_(std=0.3)
    unit.tokens_since_fired_M[::3] = 100
    return unit


def gradients(config: RunConfig, x: Tensor, y: Tensor, tokens_per_batch: int) -> tuple[list[Tensor], Any]:
    unit = unit_of(config)
    sums = StepSums(unit, config)
    for x_part, y_part in zip(x.split(tokens_per_batch), y.split(tokens_per_batch), strict=True):
        sums.add(x_part, y_part)
    sums.tensors()  # what the processes would add up
    stats, scale = sums.finish()
    scale_gradients(unit.coder, scale)
    return [p.grad for p in unit.coder.parameters() if p.grad is not None], torch.stack(stats)


@pytest.mark.parametrize(
    ("activation", "kind", "loss", "cut", "compat"),
    [(*case, compat) for case in CASES for compat in (False, True) if not (compat and case[0] == "batchtopk")],
)
def test_gradient_is_that_of_one_big_batch(activation: str, kind: str, loss: str, cut: str, compat: bool) -> None:
    size, chunks = CUTS[cut]
    options = {"activation": activation, "upstream_compat": compat, **CODERS[kind], **LOSSES[loss]}
    torch.manual_seed(0)
    x = torch.randn(60, 12)
    y = torch.randn(60, 12) if CODERS[kind] else x
    whole, stats = gradients(config_of(**options), x, y, 60)
    parts, cut_stats = gradients(config_of(**options, micro_acc_steps=chunks), x, y, size)
    torch.testing.assert_close(cut_stats, stats, rtol=1e-5, atol=0, equal_nan=True)
    for got, want in zip(parts, whole, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5 * float(want.abs().max()))


@pytest.mark.parametrize("compat", [False, True])
@pytest.mark.parametrize("through", [False, True], ids=["add", "reconstruct"])
def test_which_latents_fired(through: bool, compat: bool) -> None:
    torch.manual_seed(0)
    unit = unit_of(config := config_of(upstream_compat=compat))
    with torch.no_grad():
        unit.coder.encoder.bias.sub_(2)  # some of the chosen are not positive
    x = torch.randn(9, 12)
    latents = unit.coder.activate(x)
    assert (latents.acts == 0).any()
    sums = StepSums(unit, config)
    (sums.reconstruct if through else sums.add)(x, x)
    counted = torch.ones_like(latents.indices) if compat else (latents.acts > 0).long()
    expected = torch.zeros(48, dtype=torch.int64).index_add_(0, latents.indices.flatten(), counted.flatten())
    assert torch.equal(sums.fired_M.long(), expected)
