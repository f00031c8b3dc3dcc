"""What the latents of a checkpoint do on the held-out text: `collect` gathers it (torch), `read` serves it (numpy).

Two files of a checkpoint carry it. `<coder>/inspect.safetensors` holds, for M latents and T = 8 snippets each:

| tensor | type | meaning |
|---|---|---|
| firing_count | int64 (M) | counted tokens on which the latent is positive |
| max_activation | float32 (M) | its largest activation; 0 if it never fires |
| top_values | float32 (M, T) | its largest activations, at most one per sequence, descending; 0 for none |
| top_positions | int32 (M, T) | flat positions of those in the held-out tokens; -1 for none |
| decoder_norm | float32 (M) | norm of its decoder row |

and in its metadata `num_tokens`, the number of counted tokens. `tokens.json` holds `{"ctx_len", "tokens", "sha256"}`:
the held-out tokens as strings, flat, `ctx_len` per sequence, and the sha256 of their ids.
"""
