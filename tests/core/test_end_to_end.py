"""The losses ce and kl: reconstructions spliced into the language model, against plain autograd in float64."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from through_lm import CPU, IDS, KEPT, config_of, gradients, units_of
from torch import Tensor, nn
from torch.nn import functional
from transformers import LlamaForCausalLM

from models import VOCABULARY, dense, gemma2, gpt2, llama, opt
from runs import Trained, TrainFunction, command
from sparsify_core.capture.load import load_model
from sparsify_core.capture.splice import Splice
from sparsify_core.cli import main
from sparsify_core.config import RunConfig
from sparsify_core.data.sequences import load_sequences
from sparsify_core.errors import HookpointError
from sparsify_core.formats.sparsify import load_coder
from sparsify_core.model import token_loss
from sparsify_core.model.coder import SparseCoder
from sparsify_core.model.token_loss import cross_entropy_sum, kl_sum
from sparsify_core.rundir import RunDir
from sparsify_core.train.end_to_end import EndToEnd
from sparsify_core.train.optim import CoderOptimizer
from sparsify_core.train.step import StepSums


def reference(loss_fn: str, lm: nn.Module, coders: dict[str, SparseCoder], ids: Tensor, kept: Tensor | None) -> Tensor:
    """The mean token loss, with hooks of its own, in the dtype of `lm`."""

    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any, coder: SparseCoder) -> Any:
        y = output[0] if isinstance(output, tuple) else output
        x = (args[0] if args else kwargs["hidden_states"]) if coder.is_transcoder else y
        mask = (
            torch.ones(ids.numel(), dtype=torch.bool) if kept is None else torch.isin(torch.arange(ids.numel()), kept)
        )
        out = dense(coder, x.flatten(0, 1)).view_as(y)
        spliced = torch.where(mask.view(*ids.shape, 1), out, y)
        return (spliced, *output[1:]) if isinstance(output, tuple) else spliced

    clean = lm(ids).logits
    handles = [
        lm.base_model.get_submodule(name).register_forward_hook(
            lambda *args, coder=coder: hook(*args, coder), with_kwargs=True
        )
        for name, coder in coders.items()
    ]
    logits = lm(ids, use_cache=False).logits
    for handle in handles:
        handle.remove()
    if loss_fn == "ce":
        return functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
    p = clean.softmax(-1)
    return (p * (p.log() - logits.log_softmax(-1))).sum(-1).mean()


MODELS = {
    "residual stream": (llama, {"layers.0": (16, 16), "layers.1": (16, 16)}, {}),
    "nested hookpoints": (llama, {"layers.1.mlp": (16, 16), "layers.1": (16, 16)}, {"skip_connection": True}),
    "called by keyword, tuple output": (llama, {"layers.0.self_attn": (16, 16), "layers.2": (16, 16)}, {}),
    "gpt2": (gpt2, {"h.0.attn": (16, 16), "h.1": (16, 16)}, {}),
    "capped logits": (gemma2, {"layers.1": (16, 16)}, {}),
    "head beside the base model": (opt, {"decoder.layers.1": (16, 16)}, {}),
    "transcoder": (llama, {"layers.0.mlp": (16, 16), "layers.2.mlp": (16, 16)}, {"transcode": True}),
    "transcoder called by keyword": (llama, {"layers.1.self_attn": (16, 16)}, {"transcode": True}),
    "transcoder of other width": (gpt2, {"h.0.mlp.c_fc": (16, 64)}, {"transcode": True, "skip_connection": True}),
}


@pytest.mark.parametrize("loss_fn", ["ce", "kl"])
@pytest.mark.parametrize("kept", [None, KEPT], ids=["all", "some"])
@pytest.mark.parametrize("case", MODELS)
def test_gradients_are_those_of_plain_autograd(case: str, kept: Tensor | None, loss_fn: str) -> None:
    make, hookpoints, changes = MODELS[case]
    lm, config = make(), config_of(loss_fn, **changes)
    units = units_of(config, hookpoints)
    losses, grads = gradients(config, lm, units, [(IDS, kept)])
    doubles = {unit.hookpoint: unit.coder.double() for unit in units}
    for coder in doubles.values():
        coder.zero_grad()
    expected = reference(loss_fn, lm.double(), doubles, IDS, kept)
    expected.backward()
    for loss in losses:
        torch.testing.assert_close(loss, expected.detach(), rtol=1e-5, atol=1e-7)
    for unit in units:
        for name, p in unit.coder.named_parameters():
            scale = float(p.grad.abs().max())
            assert scale > 0
            torch.testing.assert_close(grads[f"{unit.name}/{name}"].double(), p.grad, rtol=1e-4, atol=1e-5 * scale)


@pytest.mark.parametrize("loss_fn", ["ce", "kl"])
def test_any_cut_into_batches_gives_the_gradient_of_one(loss_fn: str) -> None:
    lm, config = llama(), config_of(loss_fn, layers=[0, 1])
    units = units_of(config, {"layers.0": (16, 16), "layers.1": (16, 16)})
    kept = torch.arange(3, 16)  # all of sequence 1 is excluded
    whole = gradients(config, lm, units, [(IDS, kept)])
    cut = gradients(config, lm, units, [(IDS[:1], kept), (IDS[1:], kept[:0])])
    torch.testing.assert_close(cut, whole, rtol=1e-5, atol=1e-7)
    halves = gradients(config, lm, units, [(IDS[:1], None), (IDS[1:], None)])
    torch.testing.assert_close(halves, gradients(config, lm, units, [(IDS, None)]), rtol=1e-5, atol=1e-7)


def test_every_seed_has_its_own_forward() -> None:
    lm, hookpoints = llama(), {"layers.0": (16, 16), "layers.1": (16, 16)}
    config = config_of("kl", init_seeds=[3, 4])
    units = units_of(config, hookpoints)
    losses, grads = gradients(config, lm, units, [(IDS, None)])
    for seed in (3, 4):
        own = [unit for unit in units if unit.name.endswith(f"seed{seed}")]
        alone, own_grads = gradients(config, lm, own, [(IDS, None)])
        assert alone[0] in losses
        for name, grad in own_grads.items():
            assert torch.equal(grads[name], grad)


def test_kl_is_a_divergence() -> None:
    torch.manual_seed(0)
    clean, other = torch.randn(2, 3, 5, VOCABULARY).unbind()
    assert kl_sum(clean, clean) == 0
    assert kl_sum(clean + 3, clean) == pytest.approx(0, abs=1e-5)
    assert all(kl_sum(other[i : i + 1], clean[i : i + 1]) > 0 for i in range(3))


def test_kl_of_a_perfect_coder_is_zero_and_ce_that_of_the_model() -> None:
    lm = llama()
    clean = lm(IDS).logits
    splice = Splice(lm, ["layers.1"], needs_inputs=False)
    with splice.replacing(lambda _name, _x, y: y):
        perfect = lm(IDS).logits
    with splice.replacing(lambda _name, _x, y: y * 0):
        broken = lm(IDS).logits
    assert kl_sum(perfect, clean) == 0
    assert float(cross_entropy_sum(perfect, IDS)) / 30 == pytest.approx(float(lm(IDS, labels=IDS).loss), rel=1e-6)
    assert kl_sum(broken, clean) > 0
    assert torch.equal(lm(IDS).logits, clean)


@pytest.mark.parametrize("chunk", [1, 7, 1000])
def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    torch.manual_seed(0)
    clean, logits = torch.randn(2, 2, 16, VOCABULARY, dtype=torch.bfloat16)
    monkeypatch.setitem(token_loss._CHUNK_LOGITS, "cpu", chunk * VOCABULARY)
    for loss, wide in (
        (
            lambda q: cross_entropy_sum(q, IDS),
            lambda q: functional.cross_entropy(q[:, :-1].mT, IDS[:, 1:], reduction="sum"),
        ),
        (
            lambda q: kl_sum(q, clean),
            lambda q: functional.kl_div(q.log_softmax(-1), clean.double().softmax(-1), reduction="sum"),
        ),
    ):
        got, expected = logits.clone().requires_grad_(), logits.double().requires_grad_()
        value, reference_value = loss(got), wide(expected)
        torch.testing.assert_close(value, reference_value, rtol=1e-6, atol=0)
        value.backward()
        reference_value.backward()
        assert got.grad.dtype == torch.bfloat16
        torch.testing.assert_close(got.grad.double(), expected.grad, rtol=1e-2, atol=1e-8)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_only_kept_rows_of_element_0_change(dtype: torch.dtype) -> None:
    lm = llama().to(dtype)
    config = config_of("ce")
    units = units_of(config, {"layers.0.self_attn": (16, 16)})
    module = lm.base_model.get_submodule("layers.0.self_attn")
    outputs: list[Any] = []
    module.register_forward_hook(lambda _module, _args, output: outputs.append(output))
    sums = {unit.name: StepSums(unit, config) for unit in units}
    end_to_end = EndToEnd(config, lm, units)
    outputs.clear()
    module.register_forward_hook(lambda _module, _args, output: outputs.append(output))
    end_to_end.add(sums, IDS, KEPT)
    before, after = outputs
    assert isinstance(after, tuple)
    assert after[1] is before[1]
    assert after[0].dtype == dtype
    same = (after[0] == before[0]).flatten(0, 1).all(-1)
    assert torch.equal((~same).nonzero().flatten(), KEPT)
    assert sums["layers.0.self_attn"].moments.count == len(KEPT)


def test_activations_can_keep_the_models_format() -> None:
    lm = llama().bfloat16()
    seen = {}

    def negate(name: str, x_ND: Tensor, y_NE: Tensor) -> Tensor:
        seen[name] = (x_ND.dtype, y_NE.dtype)
        return -y_NE.float()

    splice = Splice(lm, ["layers.1.mlp"], needs_inputs=True, keeps_dtype=True)
    lm.model.layers[1].mlp.register_forward_hook(lambda _module, _args, output: seen.update(after=output))
    before = lm.model(IDS)[0]
    clean = seen["after"]
    with splice.replacing(negate):
        after = lm.model(IDS)[0]
    assert seen["layers.1.mlp"] == (torch.bfloat16, torch.bfloat16)
    assert after.dtype == torch.bfloat16
    assert torch.equal(seen["after"], -clean)
    assert not torch.equal(before, after)


def test_model_is_untouched() -> None:
    lm = llama()
    before = {name: p.clone() for name, p in lm.state_dict().items()}
    names, clean = [name for name, _ in lm.named_modules()], lm(IDS).logits
    config = config_of("ce", transcode=True)
    gradients(config, lm, units_of(config, {"layers.0.mlp": (16, 16)}), [(IDS, None)])
    assert [name for name, _ in lm.named_modules()] == names
    assert torch.equal(lm(IDS).logits, clean)
    assert all(p.grad is None and torch.equal(p, before[name]) for name, p in lm.named_parameters())


def test_transcoder_of_token_ids_is_refused() -> None:
    lm = llama()
    splice = Splice(lm, ["embed_tokens"], needs_inputs=True)
    with pytest.raises(HookpointError, match="input of embed_tokens"), splice.replacing(lambda _name, _x, y: y):
        lm(IDS)


@pytest.mark.parametrize("transcode", [False, True])
def test_cross_entropy_of_one_batch_is_learned(transcode: bool) -> None:
    lm = llama()
    config = config_of("ce", transcode=transcode, optimizer="adam", lr=0.03, lr_warmup_steps=0)
    units = units_of(config, {"layers.1": (16, 16), "layers.2": (16, 16)})
    optimizer = CoderOptimizer(config, {unit.name: unit.coder for unit in units}, 60)
    losses = []
    for step in range(60):
        losses.append(float(gradients(config, lm, units, [(IDS, None)])[0][0]))
        for unit in units:
            optimizer.step(step, unit.name, torch.ones(()))
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("optimizer", ["adam", "signum", "muon"])
@pytest.mark.parametrize("transcode", [False, True])
def test_divergence_falls(train: TrainFunction, optimizer: str, transcode: bool) -> None:
    lr = {"adam": 0.01, "signum": 0.003, "muon": 0.01}[optimizer]
    done = train(loss_fn="kl", optimizer=optimizer, transcode=transcode, lr=lr, layers=[0, 1], max_tokens=5120)
    assert done.exit_code == 0
    losses = done.series("kl_loss")
    assert len(losses) == len(done.series("fvu/layers.0")) == 80
    assert np.mean(losses[-5:]) < 0.8 * losses[0]


def test_events_and_evaluation_of_a_run(train: TrainFunction) -> None:
    done = train(loss_fn="ce", exclude_first=1, init_seeds=[0, 1])
    metrics = next(e for e in done.events() if e.type == "metrics").values
    per_coder = {f"{name}/layers.0/seed{seed}" for name in ("fvu", "dead_frac", "l0") for seed in (0, 1)}
    assert set(metrics) == per_coder | {"ce_loss", "lr", "tokens_per_s", "tokens"}
    assert metrics["l0/layers.0/seed0"] <= 4
    assert {"eval_fvu", "eval_ev", "eval_l0", "eval_dead_frac"} <= set(done.evaluation(10)["coders"]["layers.0/seed1"])


def test_logged_loss_is_that_of_the_initialized_coder(train: TrainFunction) -> None:
    done = train(loss_fn="kl", max_tokens=64, lr=1e-9, exclude_first=2)
    config = RunConfig.model_validate_json(done.run_dir.config.read_text())
    sequences = load_sequences(config)
    ids = torch.from_numpy(sequences.rows.take(sequences.train[:4]))
    coder = load_coder(done.run_dir.checkpoint(1).coder("layers.0").root)
    kept = torch.arange(64).view(4, 16)[:, 2:].flatten()
    with torch.no_grad():
        expected = reference("kl", load_model(config, CPU).double(), {"layers.0": coder.double()}, ids, kept)
    assert done.series("kl_loss") == [pytest.approx(float(expected), rel=1e-4)]


def test_undefined_fvu_is_left_out(train: TrainFunction) -> None:
    """An untrained transcoder of a whole layer maps all tokens to one point, so the layer behind it has no variance."""
    done = train(loss_fn="kl", transcode=True, layers=[0, 1])
    assert len(done.series("fvu/layers.0")) == 10
    assert len(done.series("fvu/layers.1")) < 10
    assert all(0 < fvu < 1e6 for fvu in done.series("fvu/layers.1"))


@pytest.mark.parametrize("loss_fn", ["ce", "kl"])
def test_accumulation_equals_one_big_batch(train: TrainFunction, loss_fn: str) -> None:
    changes = {"loss_fn": loss_fn, "lr": 1e-3, "exclude_first": 1}
    big = train("big", batch_size=4, **changes)
    cuts = [
        train("small", batch_size=1, grad_acc_steps=4, **changes),
        train("micro", micro_acc_steps=3, **changes),
        train("both", batch_size=2, grad_acc_steps=2, micro_acc_steps=8, **changes),
    ]
    for cut in cuts:
        for key in (f"{loss_fn}_loss", "fvu/layers.0"):
            np.testing.assert_allclose(cut.series(key), big.series(key), rtol=1e-3)
            np.testing.assert_allclose(cut.series(key)[0], big.series(key)[0], rtol=1e-6)


def test_resumed_run_equals_the_uninterrupted_one(train: TrainFunction) -> None:
    whole = train("whole", loss_fn="kl", save_every=5, keep_last=5)
    shutil.rmtree(whole.run_dir.checkpoint(10).root)
    before = whole.weights(5)
    first = whole.series("kl_loss")
    resumed = train("whole", loss_fn="kl", save_every=5, keep_last=5, resume=True)
    assert [e.values["kl_loss"] for e in resumed.events(2) if e.type == "metrics" and "kl_loss" in e.values] == first[
        5:
    ]
    assert not torch.equal(resumed.weights(10)["W_dec"], before["W_dec"])


@pytest.mark.integration
def test_two_processes_equal_one(train: TrainFunction, tiny_model: Path, tiny_text: Path, tmp_path: Path) -> None:
    changes = {"loss_fn": "kl", "exclude_first": 1, "lr": 1e-3, "layers": [0, 1]}
    words = command(tiny_model, tiny_text, tmp_path / "two", processes=2, batch_size=2, **changes)
    done = subprocess.run(words, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stdout + done.stderr
    one, two = train("one", batch_size=4, **changes), Trained(0, RunDir(tmp_path / "two"))
    for key in ("kl_loss", "fvu/layers.1", "dead_frac/layers.0"):
        assert two.series(key) == pytest.approx(one.series(key), rel=1e-3)
        assert two.series(key)[0] == pytest.approx(one.series(key)[0], rel=1e-5)
    for name, tensor in one.weights(10, "layers.1").items():
        torch.testing.assert_close(two.weights(10, "layers.1")[name], tensor, atol=2e-3, rtol=1e-2)


@pytest.mark.parametrize("loss_fn", ["ce", "kl"])
@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--auxk_alpha", "0.1"], "auxk_alpha works with loss_fn fvu"),
        (["--multi_topk"], "multi_topk works with loss_fn fvu"),
        (["--distribute_modules"], "distribute_modules works with loss_fn fvu"),
    ],
)
def test_what_end_to_end_training_does_not_add_is_refused(
    loss_fn: str, words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["gpt2", "text.jsonl", "--loss_fn", loss_fn, *words]) == 2
    assert sentence in capsys.readouterr().err


def test_model_without_its_head_is_refused(train: TrainFunction, tiny_model: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_model, tmp_path / "headless")
    LlamaForCausalLM.from_pretrained(tiny_model).model.save_pretrained(tmp_path / "headless")
    last = train(model=tmp_path / "headless", loss_fn="ce").events()[-1]
    assert last.reason_code == "model_error"
    assert "comes without lm_head.weight" in last.message


def test_non_finite_predictions_stop_the_run(train: TrainFunction, monkeypatch: pytest.MonkeyPatch) -> None:
    original = StepSums.add_token_loss
    monkeypatch.setattr(StepSums, "add_token_loss", lambda self, loss, count: original(self, loss * torch.inf, count))
    done = train(loss_fn="ce", save_every=1)
    assert done.run_dir.published() == []
    assert done.events()[-1].reason_code == "non_finite_loss"
