"""Held-out evaluation: every number against dense arithmetic in float64."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from models import VOCABULARY, dense, dense_latents, gpt2, llama
from sparsify_core import SparseCoder, SparseCoderConfig, evaluate
from sparsify_core.errors import SparsifyError
from sparsify_core.evaluation.duplicates import duplicate_frac
from sparsify_core.evaluation.result import density
from sparsify_core.metrics import METRICS

IDS = torch.randint(VOCABULARY, (5, 12), generator=torch.Generator().manual_seed(0))
RECONSTRUCTION = {"eval_fvu", "eval_ev", "eval_l0", "eval_dead_frac", "eval_dense_frac", "eval_duplicate_frac"}
DOWNSTREAM = {
    "eval_delta_ce",
    "eval_ce_recovered",
    "eval_ce_recovered_mean",
    "eval_kl",
    "eval_kl_score",
    "eval_kl_score_mean",
}


def coder_of(d_in: int = 16, d_out: int | None = None, *, seed: int = 0, **changes: Any) -> SparseCoder:
    """Random weights everywhere: untrained ones have zeros that hide mistakes."""
    coder = SparseCoder(d_in, SparseCoderConfig(**{"num_latents": 48, "k": 4, **changes}), d_out=d_out)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in coder.parameters():
            p.normal_(std=0.3, generator=generator)
        if coder.uses_batchtopk:
            coder.threshold.fill_(1.5)  # some tokens have many active latents, some have none
    return coder


def spliced(lm: nn.Module, ids: Tensor, hookpoint: str, replace: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Logits with the module's output exchanged."""

    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        y = output[0] if isinstance(output, tuple) else output
        x = args[0] if args else kwargs["hidden_states"]
        out = replace(x.flatten(0, 1), y.flatten(0, 1)).view_as(y)
        return (out, *output[1:]) if isinstance(output, tuple) else out

    handle = lm.base_model.get_submodule(hookpoint).register_forward_hook(hook, with_kwargs=True)
    logits = lm(ids, use_cache=False).logits
    handle.remove()
    return logits


def cosines(W_dec: Tensor) -> Tensor:
    """(M, M) between rows, 0 on the diagonal."""
    unit = functional.normalize(W_dec, dim=1)
    return (unit @ unit.T).fill_diagonal_(0)


@torch.no_grad()
def expected(lm: nn.Module, hookpoint: str, coder: SparseCoder, ids: Tensor, keep: Tensor) -> dict[str, float]:
    """All numbers, in the dtype of `lm` and `coder`; `keep` (n, L) is true for positions that count."""
    rows = keep.flatten()
    seen: list[tuple[Tensor, Tensor]] = []

    def note(x: Tensor, y: Tensor) -> Tensor:
        seen.append((x[rows], y[rows]))
        return y

    clean = spliced(lm, ids, hookpoint, note)
    x, y = seen[0]
    x = x if coder.is_transcoder else y
    latents, mean = dense_latents(coder, x), y.mean(0)
    fvu = float((y - dense(coder, x)).square().sum() / (y - mean).square().sum())

    def losses(make: Callable[[Tensor, Tensor], Tensor]) -> tuple[float, float]:
        logits = spliced(lm, ids, hookpoint, lambda x, y: torch.where(rows[:, None], make(x, y), y))
        p = clean.softmax(-1)
        ce = functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
        return float(ce), float((p * (clean.log_softmax(-1) - logits.log_softmax(-1))).sum(-1).mean())

    clean_ce, _ = losses(lambda x, y: y)
    ce, kl = losses(lambda x, y: dense(coder, x if coder.is_transcoder else y))
    zero_ce, zero_kl = losses(lambda x, y: torch.zeros_like(y))
    mean_ce, mean_kl = losses(lambda x, y: mean.expand_as(y))
    return {
        "eval_fvu": fvu,
        "eval_ev": 1 - fvu,
        "eval_l0": float((latents > 0).sum(1).double().mean()),
        "eval_dead_frac": float((latents > 0).any(0).logical_not().double().mean()),
        "eval_dense_frac": 0.0,  # of 48 latents none fires ten times as often as the mean one
        "eval_duplicate_frac": float((cosines(coder.W_dec) > 0.9).any(1).double().mean()),
        "eval_delta_ce": ce - clean_ce,
        "eval_ce_recovered": (zero_ce - ce) / (zero_ce - clean_ce),
        "eval_ce_recovered_mean": (mean_ce - ce) / (mean_ce - clean_ce),
        "eval_kl": kl,
        "eval_kl_score": (zero_kl - kl) / zero_kl,
        "eval_kl_score_mean": (mean_kl - kl) / mean_kl,
    }


CASES: dict[str, tuple[Callable[[], nn.Module], dict[str, SparseCoder]]] = {
    "llama residual stream": (llama, {"layers.0": coder_of(), "layers.2": coder_of(seed=1)}),
    "llama attention, by keyword, tuple output": (llama, {"layers.1.self_attn": coder_of()}),
    "llama transcoder": (llama, {"layers.1.mlp": coder_of(transcode=True, skip_connection=True)}),
    "gpt2 attention": (gpt2, {"h.1.attn": coder_of(skip_connection=True)}),
    "gpt2 transcoder of another width": (gpt2, {"h.0.mlp.c_fc": coder_of(16, 64, transcode=True)}),
    "batchtopk": (llama, {"layers.1": coder_of(activation="batchtopk"), "layers.2": coder_of(activation="batchtopk")}),
    "seeds": (gpt2, {"h.0/seed0": coder_of(), "h.0/seed3": coder_of(seed=3)}),
    "autoencoder and transcoder of one module": (
        llama,
        {"layers.2.mlp/seed0": coder_of(), "layers.2.mlp/seed1": coder_of(transcode=True)},
    ),
    "named with the base model": (llama, {"model.layers.1.mlp": coder_of()}),
}
EXCLUSIONS: dict[str, dict[str, Any]] = {"all": {}, "some": {"exclude_tokens": [int(IDS[0, 3]), 7], "exclude_first": 2}}


@pytest.mark.parametrize("exclusions", EXCLUSIONS)
@pytest.mark.parametrize("case", CASES)
def test_numbers_are_those_of_dense_arithmetic(case: str, exclusions: str) -> None:
    make, coders = CASES[case]
    lm, left_out = make(), EXCLUSIONS[exclusions]
    found = evaluate(coders, lm, IDS, batch_size=2, **left_out)
    keep = torch.ones_like(IDS, dtype=torch.bool)
    if left_out:
        keep = ~torch.isin(IDS, torch.tensor(left_out["exclude_tokens"]))
        keep[:, :2] = False
    assert found.num_tokens == int(keep.sum())
    assert list(found.values) == list(coders)
    lm = lm.double()
    for name, coder in coders.items():
        hookpoint = name.partition("/")[0].removeprefix("model.")
        wanted = expected(lm, hookpoint, coder.double(), IDS, keep)
        assert found.values[name] == pytest.approx(wanted, rel=1e-4, abs=1e-5)
        coder.float()


@pytest.mark.parametrize("batch_size", [1, 3, 5, 100])
def test_batches_change_nothing(batch_size: int) -> None:
    coders = {"layers.0": coder_of(), "layers.1.mlp": coder_of(transcode=True)}
    left_out = {"exclude_tokens": IDS[1].tolist(), "exclude_first": 1}  # the second sequence does not count at all
    found = evaluate(coders, llama(), IDS, batch_size=batch_size, **left_out)
    whole = evaluate(coders, llama(), IDS, batch_size=2, **left_out)
    assert found.density == whole.density
    for name in coders:
        assert found.values[name] == pytest.approx(whole.values[name], rel=1e-5, abs=1e-6)


def test_large_vocabularies_get_smaller_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    from sparsify_core.evaluation import downstream

    whole = evaluate({"layers.0": coder_of()}, llama(), IDS, batch_size=5)
    monkeypatch.setattr(downstream, "_LOGITS", 2 * IDS.shape[1] * VOCABULARY)
    lm, sizes = llama(), set()
    lm.register_forward_hook(lambda _module, _args, output: sizes.add(len(output.logits)))
    found = evaluate({"layers.0": coder_of()}, lm, IDS, batch_size=5)
    assert sizes == {1, 2}
    assert found.values["layers.0"] == pytest.approx(whole.values["layers.0"], rel=1e-5)


def test_perfect_coder() -> None:
    """Latents +-I keep the positive and the negative part of every dimension."""
    coder = coder_of(num_latents=32, k=16)
    with torch.no_grad():
        both = torch.cat([torch.eye(16), -torch.eye(16)])
        coder.encoder.weight.copy_(both)
        coder.W_dec.copy_(both)
        coder.encoder.bias.zero_()
        coder.b_dec.zero_()
    numbers = evaluate({"layers.1": coder}, llama(), IDS).values["layers.1"]
    zero, one = ("eval_fvu", "eval_delta_ce", "eval_kl"), ("eval_ev", "eval_ce_recovered", "eval_ce_recovered_mean")
    assert [numbers[name] for name in zero] == [0, 0, 0]
    assert [numbers[name] for name in (*one, "eval_kl_score", "eval_kl_score_mean")] == [1] * 5
    assert numbers["eval_l0"] == 16


def test_coders_that_answer_zero_or_the_mean_recover_nothing() -> None:
    lm, seen = llama(), []
    spliced(lm, IDS, "layers.1", lambda _x, y: seen.append(y[torch.arange(60) % 12 > 0]) or y)
    zero, mean = coder_of(), coder_of()
    with torch.no_grad():
        for coder in (zero, mean):
            coder.W_dec.zero_()
        zero.b_dec.zero_()
        mean.b_dec.copy_(seen[0].mean(0))
    found = evaluate({"layers.1/seed0": zero, "layers.1/seed1": mean}, lm, IDS, exclude_first=1).values
    assert found["layers.1/seed0"]["eval_ce_recovered"] == found["layers.1/seed0"]["eval_kl_score"] == 0
    of_mean = found["layers.1/seed1"]
    assert (of_mean["eval_ce_recovered_mean"], of_mean["eval_kl_score_mean"]) == pytest.approx((0, 0), abs=1e-4)
    assert of_mean["eval_fvu"] == pytest.approx(1)


def test_dense_latents_fire_often_and_far_more_often_than_the_mean() -> None:
    coder = coder_of(num_latents=480, k=4)
    with torch.no_grad():
        coder.encoder.bias[:3] = 100  # three latents fire on every token, one other latent beside them
    found = evaluate({"layers.0": coder}, llama(), IDS)
    assert 3 / 4 <= found.values["layers.0"]["eval_dense_frac"] < 1


def test_duplicates_are_counted_in_a_sample_of_many_latents() -> None:
    W_dec = torch.randn(5000, 64, generator=torch.Generator().manual_seed(0))
    assert duplicate_frac(W_dec) == 0
    W_dec[1000:2000] = 3 * W_dec[0] + 0.1 * W_dec[1000:2000]  # one direction a thousand times
    assert duplicate_frac(W_dec) == pytest.approx(0.2, abs=0.01)
    W_dec[2000:4000] = 0
    assert duplicate_frac(W_dec) == pytest.approx(0.2, abs=0.01)
    assert duplicate_frac(torch.ones(2, 3)) == 1


def test_numbers_without_a_denominator_are_left_out() -> None:
    lm = llama()
    lm.base_model.get_submodule("layers.1.mlp.down_proj").weight.zero_()
    found = evaluate({"layers.1.mlp": coder_of()}, lm, IDS)
    assert set(found.values["layers.1.mlp"]) == {
        "eval_l0",
        "eval_dead_frac",
        "eval_dense_frac",
        "eval_duplicate_frac",
        "eval_delta_ce",
        "eval_kl",
    }
    assert set(found.to_json()["formulas"]) == set(found.values["layers.1.mlp"])
    json.dumps(found.to_json(), allow_nan=False)


def test_json_says_what_was_measured() -> None:
    coders = {"layers.0": coder_of(), "layers.1": coder_of(seed=1)}
    found = evaluate(coders, llama(), IDS, exclude_first=2, exclude_tokens=[49]).to_json()
    assert found["formulas"] == {name: METRICS[name].formula for name in found["formulas"]}
    assert set(found["formulas"]) == RECONSTRUCTION | DOWNSTREAM
    assert found["tokens"] == int((IDS[:, 2:] != 49).sum())
    assert found["predicted_tokens"] == {"ce": 55, "kl": 60}
    assert found["exclusions"] == {"tokens": [49], "first": 2}
    for name, numbers in found["coders"].items():
        histogram = found["density"][name]
        assert histogram["never"] / 48 == numbers["eval_dead_frac"]
        assert sum(histogram["counts"]) + histogram["never"] == 48
    without = evaluate(coders, llama().base_model, IDS, downstream=False).to_json()
    assert set(without["formulas"]) == RECONSTRUCTION
    assert "predicted_tokens" not in without


def test_density_histogram() -> None:
    counts = torch.tensor([0, 1, 5, 20, 1000, 200_000, 1_000_000, 0, 2_000_000])
    found = density(counts, 2_000_000)
    assert found["never"] == 2
    edges = found["log10_edges"]
    assert (edges[0], edges[-1], len(edges)) == (-6, 0, 13)
    assert found["counts"] == [2, 0, 1, 0, 0, 1, 0, 0, 0, 0, 1, 2]  # 5e-7 and 2.5e-6 in the first; 1 in the last


def test_model_and_coders_are_left_as_they_are() -> None:
    lm, coder = llama(), coder_of().bfloat16()
    before = {name: p.clone() for name, p in [*lm.state_dict().items(), *coder.state_dict().items()]}
    found = evaluate({"layers.0": coder}, lm, IDS)
    assert all(torch.equal(p, before[name]) for name, p in [*lm.state_dict().items(), *coder.state_dict().items()])
    assert coder.dtype == torch.bfloat16
    assert not any(module._forward_hooks for module in lm.modules())
    assert found.values == evaluate({"layers.0": coder.float()}, lm, IDS.numpy().astype(np.uint16)).values


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "no coders": ({"coders": {}}, "no coders"),
    "no head": ({"model": llama().base_model}, "downstream=False"),
    "training mode": ({"model": llama().train()}, r"model.eval\(\)"),
    "unknown module": ({"coders": {"h.0": coder_of()}}, "no module h.0"),
    "wrong width": ({"coders": {"layers.0": coder_of(24)}}, "width 24 to 24, but layers.0 of the model has 16 and 16"),
    "cannot decode": ({"coders": {"layers.0": SparseCoder(16, SparseCoderConfig(), decoder=False)}}, "decoder=False"),
    "one long list": ({"tokens": IDS.flatten()}, r"shape \(60,\)"),
    "no numbers": ({"tokens": IDS.float()}, "float32"),
    "single tokens": ({"tokens": IDS[:, :1]}, "at least 2 tokens"),
    "of another model": ({"tokens": IDS + 10}, "only ids below 50"),
    "all excluded": ({"exclude_first": 12}, "all tokens are excluded"),
    "no batch": ({"batch_size": 0}, "batch_size is 0"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_does_not_fit_is_one_sentence(case: str) -> None:
    changes, sentence = BAD[case]
    given = {"coders": {"layers.0": coder_of()}, "model": llama(), "tokens": IDS, **changes}
    with pytest.raises(SparsifyError, match=sentence):
        evaluate(**given)
    assert not any(module._forward_hooks for module in given["model"].modules())
