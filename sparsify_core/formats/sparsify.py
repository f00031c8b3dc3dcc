"""EleutherAI/sparsify's format, which is also ours: `cfg.json` and `sae.safetensors` in one folder per coder."""

import json
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from sparsify_core.config import SparseCoderConfig
from sparsify_core.errors import CheckpointError
from sparsify_core.model.coder import SparseCoder
from sparsify_core.rundir import CoderDir


def save_coder(directory: CoderDir, coder: SparseCoder, config: SparseCoderConfig) -> None:
    """Write cfg.json, with num_latents resolved, and the weights.

    `d_out` is added to upstream's keys only where it differs from d_in, which upstream cannot express.
    """
    values: dict[str, Any] = {**config.model_dump(), "num_latents": coder.num_latents, "d_in": coder.d_in}
    if coder.d_out != coder.d_in:
        values["d_out"] = coder.d_out
    directory.config.write_text(json.dumps(values), encoding="utf-8")
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in coder.state_dict().items()}
    save_file(tensors, directory.weights)


def load_coder(directory: Path) -> SparseCoder:
    """Read a coder as float32 on the CPU; keys of cfg.json that we do not know (older or newer ones) are ignored.

    Raises CheckpointError when a file is missing, damaged, or does not fit the other.
    """
    paths = CoderDir(directory)
    try:
        values = json.loads(paths.config.read_text(encoding="utf-8"))
        known = {name: value for name, value in values.items() if name in SparseCoderConfig.model_fields}
        coder = SparseCoder(values["d_in"], SparseCoderConfig(**known), d_out=values.get("d_out"))
        coder.load_state_dict({name: tensor.to(torch.float32) for name, tensor in load_file(paths.weights).items()})
    except FileNotFoundError as error:
        raise CheckpointError(f"{directory} is not a sparse coder: it has no {Path(error.filename).name}") from error
    except (ValidationError, KeyError, ValueError, TypeError, SafetensorError, RuntimeError) as error:
        raise CheckpointError(f"the sparse coder in {directory} cannot be read: {error}") from error
    return coder
