"""A language model small enough for tests: random weights, real Hugging Face files, no network."""

import json
from pathlib import Path

WORDS = [
    a + b for a in ("ka", "lo", "mi", "nu", "pe", "ra", "so", "ti") for b in ("n", "r", "s", "t", "l", "m", "d", "g")
]


def build_text(path: Path) -> Path:
    """Write a JSONL file of texts that the model's tokenizer knows to `path`."""
    lines = [" ".join(WORDS[(start * step) % len(WORDS)] for step in range(200)) for start in range(1, 201)]
    path.write_text("".join(json.dumps({"text": line}) + "\n" for line in lines))
    return path


def build_model(folder: Path) -> Path:
    """Write a two-layer Llama of width 32 and its word-level tokenizer to `folder`; the same bytes every time."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    specials = ["<|endoftext|>", "<unk>"]
    vocabulary = {word: index for index, word in enumerate([*specials, *WORDS])}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, eos_token="<|endoftext|>", unk_token="<unk>", model_max_length=512
    )
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(vocabulary),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=512,
            bos_token_id=None,
            eos_token_id=0,
            pad_token_id=0,
        )
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
