"""BatchTopK: a batch shares its active latents, a trained coder asks a threshold."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from runs import TrainFunction
from sparsify_core import Sae
from sparsify_core.config import RunConfig, SparseCoderConfig
from sparsify_core.data.sequences import load_sequences
from sparsify_core.formats.sparsify import load_coder
from sparsify_core.model.coder import SparseCoder
from sparsify_core.model.encoding import decode, encode, select
from sparsify_core.model.losses import loss_sums


def random_coder(**changes: object) -> SparseCoder:
    torch.manual_seed(0)
    config = SparseCoderConfig.model_validate({"num_latents": 48, "k": 4, "activation": "batchtopk", **changes})
    coder = SparseCoder(12, config).double()
    with torch.no_grad():
        for p in coder.parameters():
            p.normal_()
    return coder


def dense_pre(coder: SparseCoder, x: torch.Tensor) -> torch.Tensor:
    centred = x if coder.is_transcoder else x - coder.b_dec
    return centred @ coder.encoder.weight.T + coder.encoder.bias


@pytest.mark.parametrize("transcode", [False, True])
@pytest.mark.parametrize("bias", [0.0, -7.0])
def test_loss_and_gradients_equal_dense_float64(transcode: bool, bias: float) -> None:
    """With a low bias fewer than k latents per token are positive."""
    coder = random_coder(transcode=transcode)
    with torch.no_grad():
        coder.encoder.bias.fill_(bias)
    x, y = torch.randn(2, 30, 12, dtype=torch.float64)
    pre = dense_pre(coder, x)
    keep = torch.zeros(30 * 48, dtype=torch.bool)
    keep[pre.flatten().topk(30 * 4).indices] = True
    acts = pre.relu() * keep.view(30, 48)
    expected = (y - acts @ coder.W_dec - coder.b_dec).square().sum()
    sums = loss_sums(coder, x, y)
    torch.testing.assert_close(sums.loss, expected)
    params = list(coder.parameters())
    for got, want in zip(torch.autograd.grad(sums.loss, params), torch.autograd.grad(expected, params), strict=True):
        torch.testing.assert_close(got, want)
    per_token = (acts > 0).sum(1)
    assert per_token.unique().numel() > 1
    assert int((sums.latents.acts > 0).sum()) == int(per_token.sum())


def test_input_gradient_equals_dense() -> None:
    coder = random_coder()
    x = torch.randn(9, 12, dtype=torch.float64, requires_grad=True)
    encoding = encode(coder, x)
    out = coder.complete(x, decode(coder, encoding, select(coder, encoding))[0])
    pre = dense_pre(coder, x)
    keep = torch.zeros_like(pre).flatten().index_fill(0, pre.flatten().topk(36).indices, 1.0).view_as(pre)
    expected = (pre.relu() * keep) @ coder.W_dec + coder.b_dec
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(
        torch.autograd.grad(out.square().sum(), x)[0], torch.autograd.grad(expected.square().sum(), x)[0]
    )


@pytest.mark.parametrize("threshold", [-1.0, 0.0, 2.5, 1e6])
def test_trained_coder_takes_what_reaches_the_threshold(threshold: float) -> None:
    coder = random_coder()
    coder.threshold.fill_(threshold)
    x = torch.randn(5, 12, dtype=torch.float64)
    pre = dense_pre(coder, x)
    acts = torch.where((pre >= threshold) & (pre > 0), pre, 0)
    out = coder(x)
    torch.testing.assert_close(out.out_NE, acts @ coder.W_dec + coder.b_dec)
    assert int((out.latents.acts > 0).sum()) == int((acts > 0).sum())


def test_run_saves_a_threshold_that_lets_k_latents_pass(train: TrainFunction) -> None:
    changes = {"activation": "batchtopk", "max_tokens": 5120, "optimizer": "signum", "lr": 0.003, "exclude_first": 1}
    done = train(**changes)
    fvu = done.series("fvu/layers.0")
    assert fvu[-1] < 0.7 * fvu[0]
    assert done.series("l0/layers.0")[-1] == pytest.approx(4, abs=0.01)
    coder = load_coder(done.run_dir.checkpoint(80).coder("layers.0").root)
    assert coder.threshold > 0
    numbers = done.evaluation(80)["coders"]["layers.0"]
    assert numbers["eval_l0"] == pytest.approx(4, abs=1.0)
    assert numbers["eval_fvu"] == pytest.approx(fvu[-1], rel=0.3)
    assert json.loads(done.run_dir.checkpoint(80).coder("layers.0").config.read_text())["activation"] == "batchtopk"


def test_threshold_is_that_of_the_last_batch_with_the_saved_weights(train: TrainFunction) -> None:
    done = train(activation="batchtopk", optimizer="signum", lr=0.003, exclude_first=2, micro_acc_steps=3)
    config = RunConfig.model_validate_json(done.run_dir.config.read_text())
    sequences = load_sequences(config)
    ids = torch.from_numpy(sequences.rows.take(sequences.train[36:40]))
    from sparsify_core.capture.load import load_model

    with torch.no_grad():
        hidden = load_model(config, torch.device("cpu"))(ids, output_hidden_states=True).hidden_states[1]
        x = hidden[:, 2:].reshape(-1, 32)
        coder = load_coder(done.run_dir.checkpoint(10).coder("layers.0").root)
        expected = coder.pre_activations(x).flatten().sort(descending=True).values[len(x) * 4 - 1]
    torch.testing.assert_close(coder.threshold, expected, rtol=1e-5, atol=1e-6)


def test_resumed_run_is_the_same(train: TrainFunction) -> None:
    changes = {"activation": "batchtopk", "save_every": 4, "keep_last": 9, "auxk_alpha": 0.1}
    whole = train("whole", **changes).weights(10)
    import shutil

    cut = train("cut", **changes)
    for step in (8, 10):
        shutil.rmtree(cut.run_dir.checkpoint(step).root)
    again = train("cut", resume=True, **changes).weights(10)
    assert all(torch.equal(again[name], tensor) for name, tensor in whole.items())


def test_end_to_end(train: TrainFunction) -> None:
    done = train(activation="batchtopk", loss_fn="kl", max_tokens=5120, layers=[0, 1])
    losses = done.series("kl_loss")
    assert losses[-1] < 0.8 * losses[0]
    assert done.evaluation(80)["coders"]["layers.1"]["eval_l0"] == pytest.approx(4, abs=1.5)


def test_k_decays(train: TrainFunction) -> None:
    done = train(activation="batchtopk", k_decay_steps=4)
    assert done.series("l0/layers.0")[0] > done.series("l0/layers.0")[-1] == pytest.approx(4, abs=0.1)


def test_finetuning_a_topk_coder(train: TrainFunction) -> None:
    first = train("first", max_tokens=2560)
    second = train("second", max_tokens=64, finetune=str(first.run_dir.checkpoint(40).root), activation="batchtopk")
    assert second.series("fvu/layers.0")[0] < 1.1 * first.series("fvu/layers.0")[-1]


def test_library_fills_columns_with_zeros(train: TrainFunction, tmp_path: Path) -> None:
    path = train(activation="batchtopk").run_dir.checkpoint(10).coder("layers.0").root
    coder = Sae.load_from_disk(path)
    x = torch.randn(3, 7, 32)
    encoded = coder.encode(x)
    dense = torch.where(encoded.pre_acts >= coder.threshold, encoded.pre_acts, 0)
    torch.testing.assert_close(
        torch.zeros_like(dense).scatter_add(-1, encoded.top_indices, encoded.top_acts), dense, rtol=0, atol=0
    )
    torch.testing.assert_close(
        coder.decode(encoded.top_acts, encoded.top_indices), dense @ coder.W_dec + coder.b_dec, rtol=1e-5, atol=1e-5
    )
    coder.save_to_disk(tmp_path / "again")
    assert torch.equal(load_file(tmp_path / "again" / "sae.safetensors")["threshold"], coder.threshold)
    coder.threshold.fill_(1e9)
    assert coder.encode(x).top_acts.shape == (3, 7, 1)
    torch.testing.assert_close(coder(x.view(-1, 32)).sae_out, coder.b_dec.expand(21, 32))


def test_multi_topk_is_refused() -> None:
    with pytest.raises(ValueError, match="multi_topk is about a fixed number"):
        SparseCoderConfig(activation="batchtopk", multi_topk=True)
