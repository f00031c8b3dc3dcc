"""A tiny Llama with its tokenizer in one GGUF file, as llama.cpp writes it."""

import json
from pathlib import Path
from typing import Any

from tiny import WORDS


def write_gguf(path: Path) -> Any:
    """Write it, in float32, and return the `LlamaForCausalLM` whose weights it holds."""
    import torch
    from gguf import GGUFWriter, TokenType
    from transformers import LlamaConfig, LlamaForCausalLM

    tokens, merges = _byte_pairs()
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "max_position_embeddings": 512}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokens), tie_word_embeddings=False, **sizes, **heads))

    writer = GGUFWriter(path, "llama")
    writer.add_name("tiny")
    writer.add_context_length(512)
    writer.add_embedding_length(32)
    writer.add_feed_forward_length(64)
    writer.add_block_count(2)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(model.config.rms_norm_eps)
    writer.add_rope_freq_base(10_000.0)
    writer.add_rope_dimension_count(8)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_types([TokenType.CONTROL, *[TokenType.NORMAL] * (len(tokens) - 1)])
    writer.add_token_merges(merges)
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    for name, tensor in model.state_dict().items():
        writer.add_tensor(*_stored(name, tensor, heads))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return model.eval()


def _byte_pairs() -> tuple[list[str], list[str]]:
    """Tokens by id and the merges of a byte-level tokenizer, with the end of the text in place 0."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(vocab_size=90, special_tokens=["<|endoftext|>"], show_progress=False)
    tokenizer.train_from_iterator([" ".join(WORDS)] * 9, trainer)
    vocabulary = tokenizer.get_vocab()
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    return sorted(vocabulary, key=lambda token: vocabulary[token]), [" ".join(pair) for pair in merges]


def _stored(name: str, tensor: Any, heads: dict[str, int]) -> tuple[str, Any]:
    """llama.cpp's name and layout of a tensor."""
    outer = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
    inner = {
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
        "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm",
    }
    module = name.removesuffix(".weight")
    if module in outer:
        return f"{outer[module]}.weight", tensor.numpy()
    _, _, layer, part = module.split(".", 3)
    if inner[part] in ("attn_q", "attn_k"):
        # The two halves of a head's rotary dimensions lie interleaved.
        num_heads = heads["num_attention_heads" if inner[part] == "attn_q" else "num_key_value_heads"]
        halves = tensor.reshape(num_heads, 2, -1, tensor.shape[1])
        tensor = halves.swapaxes(1, 2).reshape(tensor.shape).contiguous()
    return f"blk.{layer}.{inner[part]}.weight", tensor.numpy()
