"""Small causal language models with random weights, and a sparse coder in dense arithmetic."""

import torch
from torch import Tensor, nn
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    OPTConfig,
    OPTForCausalLM,
)

from sparsify_core.model.coder import SparseCoder

VOCABULARY = 50


def llama(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=3,
        num_attention_heads=2,
        num_key_value_heads=1,
        initializer_range=0.3,  # predictions far from uniform
    )
    return LlamaForCausalLM(config).eval().requires_grad_(False)


def gpt2() -> nn.Module:
    torch.manual_seed(0)
    config = GPT2Config(
        n_embd=16,
        n_layer=3,
        n_head=2,
        vocab_size=VOCABULARY,
        n_positions=32,
        initializer_range=0.3,
        bos_token_id=0,
        eos_token_id=0,
    )
    return GPT2LMHeadModel(config).eval().requires_grad_(False)


def gemma2() -> nn.Module:
    """Its logits are capped behind the head."""
    torch.manual_seed(0)
    config = Gemma2Config(
        vocab_size=VOCABULARY,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=3,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        initializer_range=0.3,
        final_logit_softcapping=2.0,
    )
    return Gemma2ForCausalLM(config).eval().requires_grad_(False)


def opt() -> nn.Module:
    """It does not call its base model, but the decoder inside."""
    torch.manual_seed(0)
    config = OPTConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        word_embed_proj_dim=16,
        ffn_dim=24,
        num_hidden_layers=3,
        num_attention_heads=2,
        max_position_embeddings=32,
        init_std=0.3,
    )
    return OPTForCausalLM(config).eval().requires_grad_(False)


def dense(coder: SparseCoder, x: Tensor) -> Tensor:
    """The coder's reconstruction (N, E) in dense arithmetic."""
    out = dense_latents(coder, x) @ coder.W_dec + coder.b_dec
    return out if coder.W_skip is None else out + x @ coder.W_skip.T


def dense_latents(coder: SparseCoder, x: Tensor) -> Tensor:
    """(N, M) with zeros where a latent is not active."""
    centred = x if coder.is_transcoder else x - coder.b_dec
    pre = centred @ coder.encoder.weight.T + coder.encoder.bias
    if coder.uses_batchtopk:
        return pre.relu() * (pre >= coder.threshold)
    return pre.relu() * torch.zeros_like(pre).scatter(1, pre.topk(coder.k).indices, 1.0)
