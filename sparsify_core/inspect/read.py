"""Read what `collect` gathered. Must not import torch: the web server uses it."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open

from sparsify_core.errors import CheckpointError

Snippet = tuple[float, list[tuple[str, float | None, bool]]]
"""A peak activation and its surroundings: (token, activation or None where it was not stored, is the peak)."""


@dataclass(frozen=True)
class Inspection:
    """The latents of one coder on the held-out text; see the package's docstring for the fields."""

    firing_count: npt.NDArray[np.int64]
    max_activation: npt.NDArray[np.float32]
    top_values: npt.NDArray[np.float32]
    top_positions: npt.NDArray[np.int32]
    decoder_norm: npt.NDArray[np.float32]
    num_tokens: int
    ctx_len: int
    tokens: list[str]

    @property
    def num_latents(self) -> int:
        return len(self.firing_count)

    @property
    def firing_frac(self) -> npt.NDArray[np.float64]:
        """(M) share of the counted tokens on which each latent fires."""
        return self.firing_count / max(self.num_tokens, 1)

    def top_snippets(self, latent: int, context: int = 12) -> list[Snippet]:
        """The strongest firings of a latent, strongest first, with up to `context` tokens of the same sequence on each
        side. Raises IndexError when the latent does not exist.
        """
        if not 0 <= latent < self.num_latents:
            raise IndexError(f"latent {latent} does not exist: this coder has latents 0 to {self.num_latents - 1}")
        pairs = zip(self.top_values[latent].tolist(), self.top_positions[latent].tolist(), strict=True)
        return [(value, self._around(position, value, context)) for value, position in pairs if position >= 0]

    def _around(self, position: int, value: float, context: int) -> list[tuple[str, float | None, bool]]:
        sequence_start = position - position % self.ctx_len
        first = max(position - context, sequence_start)
        last = min(position + context + 1, sequence_start + self.ctx_len)
        return [(self.tokens[i], value if i == position else None, i == position) for i in range(first, last)]


def load_inspection(coder_dir: Path, tokens_path: Path) -> Inspection:
    """Load `<coder_dir>/inspect.safetensors` with the text it points into.

    Raises CheckpointError when either file is missing or damaged (a checkpoint saved while stopping has neither).
    """
    try:
        with safe_open(coder_dir / "inspect.safetensors", framework="np") as file:
            arrays: dict[str, Any] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
            num_tokens = int(file.metadata()["num_tokens"])
        text = json.loads(tokens_path.read_text(encoding="utf-8"))
        return Inspection(**arrays, num_tokens=num_tokens, ctx_len=text["ctx_len"], tokens=text["tokens"])
    except FileNotFoundError as error:
        raise CheckpointError(f"this checkpoint has no inspection data: {coder_dir.name}") from error
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"the inspection data of {coder_dir.name} is damaged: {error}") from error
