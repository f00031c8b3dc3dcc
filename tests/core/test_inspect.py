"""The look at latents, against a Python loop."""

from pathlib import Path

import pytest
import torch

from runs import TrainFunction
from sparsify_core.config import RunConfig
from sparsify_core.data.sequences import load_sequences, token_sha256
from sparsify_core.errors import CheckpointError
from sparsify_core.inspect.collect import NUM_SNIPPETS, LatentStats
from sparsify_core.inspect.read import load_inspection
from sparsify_core.model.coder import Latents


def test_statistics_equal_brute_force() -> None:
    torch.manual_seed(0)
    num_latents, length, sequences, k = 11, 6, 40, 3
    stats = LatentStats(num_latents, tokens_per_sequence=length, device=torch.device("cpu"))
    peaks: dict[tuple[int, int], tuple[float, int]] = {}
    counts = [0] * num_latents
    for start in range(0, sequences, 7):
        rows = range(start, min(start + 7, sequences))
        positions = torch.tensor([s * length + t for s in rows for t in range(1, length)])
        indices = torch.stack([torch.randperm(num_latents)[:k] for _ in positions])
        acts = torch.relu(torch.randn(len(positions), k))
        stats.add(Latents(acts, indices), positions)
        for n, position in enumerate(positions.tolist()):
            for latent, value in zip(indices[n].tolist(), acts[n].tolist(), strict=True):
                if value > 0:
                    counts[latent] += 1
                    key = (latent, position // length)
                    peaks[key] = max(peaks.get(key, (0.0, -1)), (value, position))
    tensors = stats.tensors(torch.ones(num_latents))
    assert tensors["firing_count"].tolist() == counts
    for latent in range(num_latents):
        expected = sorted((v for key, v in peaks.items() if key[0] == latent), reverse=True)[:NUM_SNIPPETS]
        found = list(
            zip(tensors["top_values"][latent].tolist(), tensors["top_positions"][latent].tolist(), strict=True)
        )
        assert found[: len(expected)] == [(pytest.approx(v), p) for v, p in expected]
        assert all(p == -1 and v == 0 for v, p in found[len(expected) :])


def test_saved_and_read_back(train: TrainFunction) -> None:
    done = train(exclude_first=1)
    checkpoint = done.run_dir.checkpoint(10)
    inspection = load_inspection(checkpoint.coder("layers.0").root, checkpoint.tokens)
    config = RunConfig.model_validate_json(checkpoint.config.read_text())
    tokens = load_sequences(config).held_out_tokens()
    assert inspection.num_latents == 128
    assert inspection.num_tokens == 8 * 15
    assert len(inspection.tokens) == tokens.size
    assert token_sha256(tokens) == done.evaluation(10)["token_sha256"]
    assert inspection.firing_frac.sum() == pytest.approx(done.evaluation(10)["coders"]["layers.0"]["eval_l0"])
    assert inspection.decoder_norm == pytest.approx(1.0, abs=1e-5)

    latent = int(inspection.firing_count.argmax())
    snippets = inspection.top_snippets(latent, context=3)
    values = [value for value, _ in snippets]
    assert values == sorted(values, reverse=True)
    assert values[0] == inspection.max_activation[latent]
    for value, around in snippets:
        peaks = [(token, activation) for token, activation, is_peak in around if is_peak]
        assert len(peaks) == 1
        assert peaks[0][1] == value
        assert 4 <= len(around) <= 7
    with pytest.raises(IndexError, match="latents 0 to 127"):
        inspection.top_snippets(128)


def test_missing_and_damaged_files(train: TrainFunction, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no inspection data"):
        load_inspection(tmp_path, tmp_path / "tokens.json")
    checkpoint = train().run_dir.checkpoint(10)
    checkpoint.coder("layers.0").inspection.write_bytes(b"junk")
    with pytest.raises(CheckpointError, match="damaged"):
        load_inspection(checkpoint.coder("layers.0").root, checkpoint.tokens)


def test_nothing_held_out_means_no_look(train: TrainFunction) -> None:
    checkpoint = train(eval_tokens=0).run_dir.checkpoint(10)
    assert not checkpoint.evaluation.exists()
    assert not checkpoint.coder("layers.0").inspection.exists()
