"""Tiny random models of the usual architectures, in the Hugging Face format and without a tokenizer."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

NUM_LAYERS = 2
VOCABULARY = 67
_ROPE = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_attention_heads": 4,
    "num_hidden_layers": NUM_LAYERS,
    "max_position_embeddings": 64,
}
_GROUPED = {**_ROPE, "num_key_value_heads": 2, "head_dim": 8}
_GPT2 = {"n_embd": 32, "n_layer": NUM_LAYERS, "n_head": 4, "n_positions": 64}


@dataclass(frozen=True)
class Family:
    """An architecture: its `model_type`, its sizes, and the names of its layers and their parts."""

    model_type: str
    sizes: dict[str, Any]
    layers: str = "layers"
    attention: str = "self_attn"


FAMILIES = [
    Family("gpt2", _GPT2, layers="h", attention="attn"),
    Family("gpt_neox", _ROPE, attention="attention"),
    Family("llama", _GROUPED),
    Family("mistral", _GROUPED),
    Family("qwen2", _GROUPED),
    Family("qwen3", _GROUPED),
    Family("gemma2", _GROUPED),
    Family("gemma3_text", _GROUPED),
]


def build_family(family: Family, folder: Path, *, spread: float = 0.2) -> Path:
    """Write a model to `folder`; `spread` is the standard deviation of its random weights."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    ends = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
    config = AutoConfig.for_model(
        family.model_type, vocab_size=VOCABULARY, initializer_range=spread, **ends, **family.sizes
    )
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder
