"""Whole runs on a tiny model, through the command line."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from runs import TrainFunction
from sparsify_core.capture.load import load_model
from sparsify_core.config import RunConfig
from sparsify_core.data.read_ahead import ReadAhead
from sparsify_core.data.sequences import Sequences, load_sequences
from sparsify_core.formats.sparsify import load_coder


@pytest.mark.parametrize("optimizer", ["adam", "signum", "muon"])
@pytest.mark.parametrize("transcode", [False, True])
def test_loss_falls(train: TrainFunction, optimizer: str, transcode: bool) -> None:
    lr = {"adam": 0.01, "signum": 0.003, "muon": 0.02}[optimizer]
    done = train(optimizer=optimizer, transcode=transcode, lr=lr, max_tokens=2560)
    assert done.exit_code == 0
    fvu = done.series("fvu/layers.0")
    assert len(fvu) == 40
    assert fvu[-1] < 0.8 * fvu[0]
    held_out = done.series("eval_fvu/layers.0")
    assert held_out[-1] < 0.85 * fvu[0]


def test_events_tell_the_whole_story(train: TrainFunction) -> None:
    events = train(save_every=4, exclude_first=1).events()
    kinds = [e.type for e in events]
    assert kinds[0] == "attempt_started"
    assert [e.name for e in events if e.type == "phase"][:3] == ["loading model", "tokenizing", "training"]
    planned = next(e for e in events if e.type == "training_planned")
    assert (planned.total_steps, planned.tokens_per_step) == (10, 64)
    assert planned.num_latents == {"layers.0": 128}
    assert [e.step for e in events if e.type == "checkpoint_saved"] == [4, 8, 10]
    metrics = next(e for e in events if e.type == "metrics")
    assert set(metrics.values) == {
        "fvu/layers.0",
        "dead_frac/layers.0",
        "l0/layers.0",
        "lr",
        "tokens_per_s",
        "tokens",
    }
    assert metrics.values["l0/layers.0"] <= 4
    assert (events[-1].type, events[-1].outcome, events[-1].step) == ("attempt_finished", "completed", 10)


def test_log_every(train: TrainFunction) -> None:
    done = train(log_every=4)
    assert [e.step for e in done.events() if e.type == "metrics" and "lr" in e.values] == [4, 8, 10]


def test_several_seeds_and_hookpoints(train: TrainFunction) -> None:
    done = train(layers=[0, 1], init_seeds=[0, 7])
    names = ["layers.0/seed0", "layers.0/seed7", "layers.1/seed0", "layers.1/seed7"]
    assert list(done.evaluation(10)["coders"]) == names
    assert not torch.equal(done.weights(10, names[0])["W_dec"], done.weights(10, names[1])["W_dec"])


@pytest.mark.parametrize("optimizer", ["adam", "signum"])
def test_accumulation_equals_one_big_batch(train: TrainFunction, optimizer: str) -> None:
    lr = 1e-3
    big = train("big", batch_size=4, optimizer=optimizer, lr=lr, exclude_first=1)
    small = train("small", batch_size=1, grad_acc_steps=4, optimizer=optimizer, lr=lr, exclude_first=1)
    np.testing.assert_allclose(small.series("fvu/layers.0"), big.series("fvu/layers.0"), rtol=1e-3)
    np.testing.assert_allclose(small.series("fvu/layers.0")[0], big.series("fvu/layers.0")[0], rtol=1e-6)


@pytest.mark.parametrize("optimizer", ["adam", "muon"])
def test_saved_decoder_rows_have_unit_norm(train: TrainFunction, optimizer: str) -> None:
    norms = train(optimizer=optimizer).weights(10)["W_dec"].norm(dim=1)
    torch.testing.assert_close(norms, torch.ones(128))


def test_signum_saves_its_average_and_trains_on_unit_rows(train: TrainFunction) -> None:
    """x, the average that is saved, lies between y, which is trained on, and z: y = 0.05 z + 0.95 x."""
    done = train(optimizer="signum", lr=0.003)
    with safe_open(done.run_dir.checkpoint(10).training_tensors(0), framework="pt") as file:
        y, z = (file.get_tensor(f"{part}/layers.0/W_dec{key}") for part, key in (("weights", ""), ("optimizer", "/z")))
    torch.testing.assert_close(y.norm(dim=1), torch.ones(128))
    torch.testing.assert_close(done.weights(10)["W_dec"], (y - 0.05 * z) / 0.95, atol=1e-6, rtol=1e-5)


def test_excluded_tokens_and_positions_do_not_matter(train: TrainFunction, tiny_text: Path, tmp_path: Path) -> None:
    excluded = [5, 9]
    done = train(exclude_tokens=excluded, exclude_first=2)
    evaluation = done.evaluation(10)
    assert evaluation["exclusions"] == {"tokens": excluded, "first": 2}
    config = RunConfig.model_validate_json(done.run_dir.config.read_text())
    tokens = load_sequences(config).held_out_tokens()
    assert evaluation["tokens"] == int((~np.isin(tokens[:, 2:], excluded)).sum())


def test_special_tokens_of_the_tokenizer_are_excluded(train: TrainFunction) -> None:
    special = train("special", exclude_special_tokens=True, exclude_tokens=[9, 5])
    by_id = train("by_id", exclude_tokens=[0, 5, 9])
    assert special.evaluation(10)["exclusions"] == {"tokens": [0, 5, 9], "first": 0}
    assert special.series("fvu/layers.0") == by_id.series("fvu/layers.0")
    assert special.evaluation(10)["tokens"] < train("all").evaluation(10)["tokens"]


def test_evaluation_equals_brute_force(train: TrainFunction) -> None:
    done = train(exclude_first=1, optimizer="signum", lr=0.003)
    config = RunConfig.model_validate_json(done.run_dir.config.read_text())
    tokens = torch.from_numpy(load_sequences(config).held_out_tokens())
    coder = load_coder(done.run_dir.checkpoint(10).coder("layers.0").root).double()
    with torch.no_grad():
        hidden = load_model(config, torch.device("cpu"))(tokens, output_hidden_states=True).hidden_states[1]
        x = hidden[:, 1:].reshape(-1, 32).double()
        out = coder(x)
    numbers = done.evaluation(10)["coders"]["layers.0"]
    expected = (x - out.out_NE).square().sum() / (x - x.mean(0)).square().sum()
    assert math.isclose(numbers["eval_fvu"], float(expected), rel_tol=1e-5)
    fired = torch.bincount(out.latents.indices[out.latents.acts > 0], minlength=128)
    assert math.isclose(numbers["eval_l0"], float(fired.sum()) / len(x))
    assert math.isclose(numbers["eval_dead_frac"], float((fired == 0).double().mean()))


def test_held_out_tokens_are_never_trained_on(train: TrainFunction, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Sequences] = []
    trained: list[np.ndarray] = []
    make, read = ReadAhead.__init__, ReadAhead.batches

    def spy_on_making(self: ReadAhead, sequences: Sequences, **kwargs: int) -> None:
        seen.append(sequences)
        make(self, sequences, **kwargs)

    def spy_on_reading(self: ReadAhead, *args: int):
        for start, ids in read(self, *args):
            trained.append(ids)
            yield start, ids

    monkeypatch.setattr(ReadAhead, "__init__", spy_on_making)
    monkeypatch.setattr(ReadAhead, "batches", spy_on_reading)
    train(ctx_len=64, max_tokens=2560, batch_size=2)
    held_out = {row.tobytes() for row in seen[0].held_out_tokens()}
    assert len(held_out) == 2
    assert trained
    assert not held_out & {row.tobytes() for batch in trained for row in batch}


def test_dead_latents_are_counted_in_tokens(train: TrainFunction) -> None:
    done = train(dead_feature_threshold=100, num_latents=512, k=1)
    dead = done.series("dead_frac/layers.0")
    assert dead[0] == 0  # 64 tokens seen
    assert dead[1] > 0  # 128 tokens seen


def test_first_step_initializes_biases_from_data(train: TrainFunction) -> None:
    done = train(max_tokens=64, lr=1e-9)
    config = RunConfig.model_validate_json(done.run_dir.config.read_text())
    sequences = load_sequences(config)
    tokens = torch.from_numpy(sequences.rows.take(sequences.train[:4]))
    with torch.no_grad():
        hidden = load_model(config, torch.device("cpu"))(tokens, output_hidden_states=True).hidden_states[1]
    torch.testing.assert_close(done.weights(1)["b_dec"], hidden.flatten(0, 1).mean(0), atol=1e-6, rtol=1e-5)


def test_every_step_is_a_beat_of_the_pulse_whatever_is_logged(
    train: TrainFunction, monkeypatch: pytest.MonkeyPatch
) -> None:
    beats: list[Path] = []
    monkeypatch.setattr(Path, "touch", lambda path, *_: beats.append(path))
    done = train(log_every=10, eval_tokens=0)
    assert beats == [done.run_dir.pulse(1)] * 10
