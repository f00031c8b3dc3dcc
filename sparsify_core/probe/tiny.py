"""A random language model of two layers and random tokens to train on: nothing is downloaded."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

_VOCABULARY = 128
_TOKENS = 20_000


def probe(folder: str) -> dict[str, Any]:
    """Write `folder/model` (32 wide) and `folder/tokens.bin`. Returns `{model, dataset}`, their paths."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=_VOCABULARY,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=64,
    )
    model, tokens = Path(folder, "model"), Path(folder, "tokens.bin")
    LlamaForCausalLM(config).save_pretrained(model)
    np.random.default_rng(0).integers(0, _VOCABULARY, _TOKENS, dtype=np.uint16).tofile(tokens)
    return {"model": str(model), "dataset": str(tokens)}
