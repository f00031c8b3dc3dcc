"""Logits are read from hidden states a few at a time: the same losses and gradients, and never all logits at once."""

from pathlib import Path
from typing import Any

import pytest
import torch
from through_lm import IDS, KEPT, config_of, units_of
from torch import Tensor, nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoModelForCausalLM

from families import FAMILIES, VOCABULARY, Family, build_family
from models import VOCABULARY as LLAMA_VOCABULARY
from models import llama, opt
from sparsify_core.capture.readout import Readout
from sparsify_core.model import token_loss
from sparsify_core.model.token_loss import cross_entropy_sum, kl_sum
from sparsify_core.train.end_to_end import EndToEnd
from sparsify_core.train.step import StepSums

GROUPED = FAMILIES[2].sizes
CUT = [
    *FAMILIES,
    Family("cohere", {**GROUPED, "logit_scale": 0.3}),
    Family("granite", {**GROUPED, "logits_scaling": 3.0}),
]
EVERY_MODEL = pytest.mark.parametrize("family", CUT, ids=lambda family: family.model_type)


def build(family: Family, folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(build_family(family, folder)).eval().requires_grad_(False)


@EVERY_MODEL
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_logits_of_some_tokens_are_the_models(family: Family, dtype: torch.dtype, tmp_path: Path) -> None:
    lm = build(family, tmp_path / "model").to(dtype)
    readout = Readout(lm)
    logits = lm(input_ids=IDS, use_cache=False).logits.flatten(0, 1)
    states = readout.states(IDS)
    assert states.shape == (2, 16, 32)
    assert states.dtype == dtype
    rows = torch.tensor([0, 5, 31])
    got = readout.logits(states.flatten(0, 1)[rows])
    assert got.dtype == logits.dtype
    torch.testing.assert_close(got, logits[rows])
    assert not any("forward" in vars(module) for module in lm.modules())


@EVERY_MODEL
@pytest.mark.parametrize("chunk", [1, 7, 1000])
def test_losses_and_gradients_are_those_of_all_logits(
    family: Family, chunk: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(token_loss._CHUNK_LOGITS, "cpu", chunk * VOCABULARY)
    lm = build(family, tmp_path / "model").double()
    readout = Readout(lm)
    states, clean = readout.states(IDS), readout.states(IDS.flip(0))
    states, plain = states.clone().requires_grad_(), states.clone().requires_grad_()
    q = readout.logits(plain.flatten(0, 1)).log_softmax(-1)
    p = readout.logits(clean.flatten(0, 1)).softmax(-1)
    for got, expected in (
        (
            cross_entropy_sum(states, IDS, readout.logits),
            functional.nll_loss(q.view(2, 16, -1)[:, :-1].flatten(0, 1), IDS[:, 1:].flatten(), reduction="sum"),
        ),
        (kl_sum(states, clean, readout.logits), (p * (p.log() - q)).sum()),
    ):
        torch.testing.assert_close(got, expected, rtol=1e-10, atol=0)
        (grad,) = torch.autograd.grad(3 * got, states)
        (expected_grad,) = torch.autograd.grad(3 * expected, plain, retain_graph=True)
        torch.testing.assert_close(grad, expected_grad, rtol=1e-9, atol=1e-12)
    with torch.no_grad():  # without a gradient it is another way through the code
        torch.testing.assert_close(kl_sum(states, clean, readout.logits), got.detach(), rtol=1e-12, atol=0)


def test_model_that_cannot_be_cut_gives_its_logits() -> None:
    lm: Any = opt()
    readout = Readout(lm)
    logits = lm(input_ids=IDS, use_cache=False).logits
    assert torch.equal(readout.states(IDS), logits)
    rows = logits.flatten(0, 1)[:3]
    assert readout.logits(rows) is rows


class Largest(TorchDispatchMode):
    """Notes the largest number of elements of a tensor whose rows are as long as those of logits."""

    def __init__(self, lm: nn.Module) -> None:
        super().__init__()
        self.weights = {p.data_ptr() for p in lm.parameters()}  # the head's is as long when it is transposed
        self.logits = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else [out]:
            if isinstance(tensor, Tensor) and tensor.dim() and tensor.shape[-1] == LLAMA_VOCABULARY:
                self.logits = max(self.logits, 0 if tensor.data_ptr() in self.weights else tensor.numel())
        return out


@pytest.mark.parametrize("loss_fn", ["ce", "kl"])
def test_logits_of_all_tokens_never_exist(loss_fn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lm, config = llama(), config_of(loss_fn)
    units = units_of(config, {"layers.1": (16, 16)})
    sums = {unit.name: StepSums(unit, config) for unit in units}
    step = EndToEnd(config, lm, units)
    monkeypatch.setitem(token_loss._CHUNK_LOGITS, "cpu", 5 * LLAMA_VOCABULARY)
    with Largest(lm) as during_a_step:
        step.add(sums, IDS, KEPT)
    with Largest(lm) as during_a_forward:
        lm(IDS)
    assert during_a_step.logits == 5 * LLAMA_VOCABULARY
    assert during_a_forward.logits == IDS.numel() * LLAMA_VOCABULARY
