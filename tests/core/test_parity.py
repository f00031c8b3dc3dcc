"""Learning step by step as EleutherAI's own trainer does, on the same model and tokens."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import AutoModelForCausalLM

from oracle import Oracle
from peer import Logged, train_peer
from runs import Trained
from sparsify_core import MemmapDataset, SaeConfig, TrainConfig, Trainer

pytestmark = pytest.mark.integration

NUM_STEPS = 50
CTX_LEN = 16
BASE = {"batch_size": 8, "lr_warmup_steps": 10, "layers": [0, 1], "lr": 3e-3}
SAE = {"num_latents": 128, "k": 8}

CASES: dict[str, dict[str, Any]] = {
    "adam": {"optimizer": "adam"},
    "signum": {"optimizer": "signum"},
    "transcoder": {"optimizer": "adam", "sae": {"transcode": True}},
    "transcoder signum": {"optimizer": "signum", "sae": {"transcode": True}},
    "skip": {"optimizer": "adam", "sae": {"skip_connection": True}},
    "skip transcoder signum": {"optimizer": "signum", "sae": {"transcode": True, "skip_connection": True}},
    "groupmax": {"optimizer": "adam", "sae": {"activation": "groupmax"}},
    "groupmax signum": {"optimizer": "signum", "sae": {"activation": "groupmax"}},
    "few positive": {"optimizer": "adam", "sae": {"k": 96}},
    "auxk": {"optimizer": "adam", "auxk_alpha": 0.5, "dead_feature_threshold": 500, "sae": {"k": 1}},
    "multi_topk": {"optimizer": "adam", "sae": {"multi_topk": True}},
    "excluded tokens": {"optimizer": "adam", "exclude_tokens": [3, 4, 5]},
}


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random tokens for NUM_STEPS steps in upstream's memmap format."""
    path = tmp_path_factory.mktemp("parity") / "tokens.bin"
    ids = np.random.default_rng(0).integers(2, 66, NUM_STEPS * BASE["batch_size"] * CTX_LEN)
    ids.astype(np.uint16).tofile(path)
    return path


def values_of(case: dict[str, Any]) -> dict[str, Any]:
    return {**BASE, **case, "sae": {**SAE, **case.get("sae", {})}}


@pytest.fixture(scope="module")
def upstream(oracle: Oracle, tiny_model: Path, tokens: Path, tmp_path_factory: pytest.TempPathFactory) -> Logged:
    """What upstream's trainer logged at every step, by case."""
    folder = tmp_path_factory.mktemp("upstream")
    cases = {name: {**values_of(case), "tokens": str(tokens)} for name, case in CASES.items()}
    return train_peer(oracle, tiny_model, folder, cases, ctx_len=CTX_LEN)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.usefixtures("one_core")
def test_every_step_is_upstreams(case: str, upstream: Logged, tiny_model: Path, tokens: Path, tmp_path: Path) -> None:
    values = values_of(CASES[case])
    sae = SaeConfig(**values.pop("sae"))
    config = TrainConfig(sae, **values, upstream_compat=True, eval_tokens=0, save_dir=str(tmp_path), run_name="ours")
    trainer = Trainer(config, MemmapDataset(tokens, CTX_LEN), AutoModelForCausalLM.from_pretrained(tiny_model))
    trainer.fit()
    ours, theirs = Trained(0, trainer.run_dir), upstream[case]
    assert len(theirs) == NUM_STEPS
    for coder in ("layers.0", "layers.1"):
        for their_key, our_key in (("fvu", "fvu"), ("dead_pct", "dead_frac"), ("auxk", "auxk")):
            expected = [info[f"{their_key}/{coder}"] for info in theirs if f"{their_key}/{coder}" in info]
            if expected:
                np.testing.assert_allclose(ours.series(f"{our_key}/{coder}"), expected, rtol=1e-4)
