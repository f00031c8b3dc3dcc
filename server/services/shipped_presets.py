"""Presets that come with Sparseboard. Where a number differs from the default, the comment says whose it is."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class ShippedPreset:
    """What differs from the defaults; `launch` is what a run has besides its configuration."""

    key: str
    name: str
    description: str
    config: dict[str, Any]
    launch: dict[str, Any] = field(default_factory=dict)


SMOLLM2 = "HuggingFaceTB/SmolLM2-135M"
TEXT = "EleutherAI/SmolLM2-135M-10B"
"""sparsify's default dataset."""

SHIPPED = (
    ShippedPreset(
        "smollm2",
        "SmolLM2-135M, all layers",
        "An autoencoder for the output of each of the 30 layers, on a billion tokens. One GPU of 24 GB or more.",
        {
            "model": SMOLLM2,
            "dataset": TEXT,
            # EleutherAI's released coders for this model have seen as many tokens.
            "max_tokens": 1_000_000_000,
            # Gao et al. 2024, section 2.4 (https://arxiv.org/abs/2406.04093).
            "auxk_alpha": 1 / 32,
            # The first position is an attention sink with an activation of its own.
            "exclude_first": 1,
        },
    ),
    ShippedPreset(
        "gpt2",
        "GPT-2 as sparsify trains it",
        "Attention and MLP activations of all 12 layers, as in sparsify's README, learning as sparsify does.",
        {
            "model": "openai-community/gpt2",
            "dataset": TEXT,
            # python -m sparsify gpt2 --hookpoints "h.*.attn" "h.*.mlp.act"
            "hookpoints": ["h.*.attn", "h.*.mlp.act"],
            "ctx_len": 1024,  # all the positions that GPT-2 has
            "upstream_compat": True,
        },
    ),
    ShippedPreset(
        "pythia",
        "Pythia-160m",
        "An autoencoder for the output of each of the 12 layers: the first command of sparsify's README.",
        {
            # python -m sparsify EleutherAI/pythia-160m
            "model": "EleutherAI/pythia-160m",
            "dataset": TEXT,
            "max_tokens": 1_000_000_000,
        },
    ),
    ShippedPreset(
        "llama3",
        "Llama-3-8B on 8 GPUs",
        "Every second layer, with the layers spread over 8 GPUs of 80 GB. The model is gated: set HF_TOKEN first.",
        {
            # torchrun --nproc_per_node gpu -m sparsify meta-llama/Meta-Llama-3-8B --distribute_modules --batch_size 1
            # --layer_stride 2 --grad_acc_steps 8 --ctx_len 2048 --k 192 --load_in_8bit --micro_acc_steps 2; in 16 bits,
            # which 80 GB have room for.
            "model": "meta-llama/Meta-Llama-3-8B",
            "dataset": TEXT,
            "layer_stride": 2,
            "sae": {"k": 192},
            "batch_size": 1,
            "grad_acc_steps": 8,
            "micro_acc_steps": 2,
            "ctx_len": 2048,
            "distribute_modules": True,
            "max_tokens": 1_000_000_000,
        },
        {"num_processes": 8, "min_memory_gb": 75},
    ),
    ShippedPreset(
        "circuits",
        "Transcoders for circuit tracing",
        "A skip transcoder for the MLP of every layer of SmolLM2-135M, as circuit-tracer takes them. One GPU of 24 GB.",
        {
            "model": SMOLLM2,
            "dataset": TEXT,
            "hookpoints": ["layers.*.mlp"],
            # Paulo et al. 2025: the skip connection lowers the loss and costs no interpretability
            # (https://arxiv.org/abs/2501.18823). EleutherAI's are 128 times as wide as the model, which takes 80 GB.
            "sae": {"transcode": True, "skip_connection": True, "k": 64},
            "max_tokens": 1_000_000_000,
            "exclude_first": 1,
        },
    ),
)
