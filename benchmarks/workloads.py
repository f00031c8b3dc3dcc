"""Language models of real shapes with random weights, and tokens for them. Noise is not text: this says nothing about
quality."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, GPTNeoXConfig, LlamaConfig, PreTrainedConfig, PreTrainedModel


@dataclass(frozen=True)
class Workload:
    """What is trained on, and where. `values` go into both sides' TrainConfig, `sae` into its SaeConfig."""

    name: str
    hookpoints: list[str]
    batch_size: int
    ctx_len: int
    sae: dict[str, Any] = field(default_factory=lambda: {"expansion_factor": 32, "k": 32})

    @property
    def tokens_per_step(self) -> int:
        return self.batch_size * self.ctx_len


WORKLOADS = {
    w.name: w
    for w in (
        Workload("W1", ["layers.15"], 32, 2048),  # 18,432 latents
        Workload("W2", [f"layers.{layer}" for layer in range(12)], 16, 2048),  # 12 times 24,576 latents
        Workload("tiny", ["layers.0", "layers.1"], 4, 32, {"expansion_factor": 4, "k": 4}),
    )
}
"""W1 is SmolLM2-135M's shape, W2 pythia-160m's; `tiny` tries a benchmark without a GPU."""

MODES: dict[str, dict[str, Any]] = {
    "signum": {},
    "adam": {"optimizer": "adam"},
    "muon": {"optimizer": "muon"},
    "auxk": {"auxk_alpha": 1 / 32},
    "transcode": {"sae": {"transcode": True}},
    "skip": {"sae": {"transcode": True, "skip_connection": True}},
    "groupmax": {"sae": {"activation": "groupmax"}},
    "multi_topk": {"sae": {"multi_topk": True}},
    "batchtopk": {"sae": {"activation": "batchtopk"}},
    "ce": {"loss_fn": "ce"},
    "kl": {"loss_fn": "kl"},
}


def train_values(workload: Workload, mode: str) -> dict[str, Any]:
    """Values of TrainConfig for a mode, those of its SaeConfig under `sae`."""
    values: dict[str, Any] = {"hookpoints": workload.hookpoints, "batch_size": workload.batch_size, **MODES[mode]}
    values["sae"] = {**workload.sae, **values.get("sae", {})}
    if values["sae"].get("transcode"):
        values["hookpoints"] = [f"{name}.mlp" for name in workload.hookpoints]
    if mode == "auxk":  # dead is what did not fire in four whole steps: thousands of latents from the 5th on
        values["dead_feature_threshold"] = workload.tokens_per_step * 4 - 1
    return values


def build_lm(workload: str, device: str) -> Any:
    """A causal language model with random weights: bfloat16 on CUDA, else float32."""
    torch.manual_seed(0)
    if workload == "W2":
        config: Any = GPTNeoXConfig(
            hidden_size=768,
            num_hidden_layers=12,
            num_attention_heads=12,
            intermediate_size=3072,
            vocab_size=50304,
            max_position_embeddings=2048,
            rotary_pct=0.25,
        )
    else:
        small = workload == "tiny"
        config = LlamaConfig(
            hidden_size=72 if small else 576,
            num_hidden_layers=2 if small else 30,
            num_attention_heads=9,
            num_key_value_heads=3,
            intermediate_size=96 if small else 1536,
            vocab_size=512 if small else 49152,
            max_position_embeddings=8192,
            rms_norm_eps=1e-5,
            tie_word_embeddings=True,
        )
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(config)
    return model.to(torch.bfloat16 if device.startswith("cuda") else torch.float32).eval()


def write_random_tokens(path: Path, workload: Workload, num_sequences: int, vocabulary: int) -> None:
    """A memmap of uint16 ids, the same every time."""
    ids = np.random.default_rng(0).integers(vocabulary, size=num_sequences * workload.ctx_len, dtype=np.uint16)
    ids.tofile(path)


class _StoreConfig(PreTrainedConfig):
    model_type = "activation_store"
    num_hidden_layers = 0


class ActivationStore(PreTrainedModel):
    """Stands for a language model whose token i has the activation rows[i], at the hookpoint `rows`: what a coder costs
    alone. The look-up moves each activation once."""

    config_class = _StoreConfig

    def __init__(self, rows_ND: Tensor) -> None:
        super().__init__(_StoreConfig(vocab_size=len(rows_ND), hidden_size=rows_ND.shape[1]))
        self.rows = nn.Embedding.from_pretrained(rows_ND, freeze=True)

    def get_input_embeddings(self) -> nn.Module:
        return self.rows

    def forward(self, input_ids: Tensor, **_options: object) -> Tensor:
        activations: Tensor = self.rows(input_ids)
        return activations


def mixture(num_tokens: int, width: int, device: str, *, num_directions: int = 16_384, seed: int = 0) -> Tensor:
    """(num_tokens, width), bfloat16 on CUDA, else float32: sums of 48 unit directions whose use falls as 1 / rank,
    around a mean, with noise. The directions are the same for every seed."""
    dtype = torch.bfloat16 if device.startswith("cuda") else torch.float32
    fixed = torch.Generator(device).manual_seed(7)
    directions_FD = nn.functional.normalize(torch.randn(num_directions, width, device=device, generator=fixed))
    mean_D = 0.05 * torch.randn(width, device=device, generator=fixed)
    own = torch.Generator(device).manual_seed(seed)
    parts = []
    for start in range(0, num_tokens, 8192):
        size = min(8192, num_tokens - start)
        use_F = 1 / (torch.arange(num_directions, device=device) + 10.0)
        chosen = torch.multinomial(use_F, size * 48, replacement=True, generator=own).view(size, 48)
        amounts = 2 * torch.rand(size, 48, device=device, generator=own)
        x_ND = nn.functional.embedding_bag(chosen, directions_FD, per_sample_weights=amounts, mode="sum")
        noise_ND = 0.02 * torch.randn(size, width, device=device, generator=own)
        parts.append((x_ND + mean_D + noise_ND).to(dtype))
    return torch.cat(parts)
