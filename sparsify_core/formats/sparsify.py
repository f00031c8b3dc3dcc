"""EleutherAI/sparsify's format, which is also ours: `cfg.json` and `sae.safetensors` in one folder per coder.

Tensors are named `encoder.weight` (M, D), `encoder.bias` (M), `W_dec` (M, E), `b_dec` (E), `W_skip` (E, D); other names
that such files came with are read too.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from sparsify_core.config import SparseCoderConfig
from sparsify_core.errors import CheckpointError
from sparsify_core.model.coder import SparseCoder
from sparsify_core.rundir import CoderDir

_OTHER_NAMES = {"W_enc": "encoder.weight", "b_enc": "encoder.bias", "decoder.weight": "W_dec", "decoder.bias": "b_dec"}
"""Names in older and converted files -> the format's. Their matrices may lie the other way round."""


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


@dataclass(frozen=True)
class CoderFiles:
    """What a coder's folder says. `tensors` are on the CPU, in the dtypes of the file; `dtype` is the first one's."""

    d_in: int
    d_out: int | None
    config: SparseCoderConfig
    tensors: dict[str, Tensor]
    dtype: torch.dtype


def read_files(directory: Path) -> CoderFiles:
    """Read cfg.json and the weights; keys of cfg.json that we do not know (older or newer ones) are ignored.

    Raises CheckpointError when a file is missing or damaged.
    """
    paths = CoderDir(directory)
    with reading(directory):
        values: dict[str, Any] = dict(json.loads(paths.config.read_text(encoding="utf-8")))
        known = {name: value for name, value in values.items() if name in SparseCoderConfig.model_fields}
        with safe_open(paths.weights, framework="pt", device="cpu") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
        d_in, config = int(values["d_in"]), SparseCoderConfig(**known)
        dtype = next(iter(tensors.values())).dtype
        tensors = _renamed(tensors, config.resolve_num_latents(d_in))
        d_out = None if values.get("d_out") is None else int(values["d_out"])
        return CoderFiles(d_in, d_out, config, tensors, dtype)


def _renamed(tensors: dict[str, Tensor], num_latents: int) -> dict[str, Tensor]:
    """The tensors under the format's names, latents first; square matrices are taken to be that way already."""
    renamed: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        current = _OTHER_NAMES.get(name, name)
        if current != name and current in tensors:
            raise ValueError(f"it holds both {name} and {current}")
        lies_across = current != name and tensor.dim() == 2 and tensor.shape[0] != num_latents == tensor.shape[1]
        renamed[current] = tensor.T if lies_across else tensor
    return renamed


def fill(coder: SparseCoder, files: CoderFiles, directory: Path, *, strict: bool = True) -> None:
    """Copy the weights into `coder`, in its dtype. Raises CheckpointError when they do not fit.

    Args:
        strict: refuse tensors that the coder does not have.
    """
    own = coder.state_dict()
    missing = sorted(own.keys() - files.tensors.keys())
    if missing:
        hint = ": load it with decoder=False" if missing == ["W_dec"] else ""
        raise CheckpointError(f"the sparse coder in {directory} has no {', '.join(missing)}{hint}")
    with reading(directory):
        wanted = files.tensors if strict else {name: files.tensors[name] for name in own}
        coder.load_state_dict({name: tensor.to(coder.b_dec.dtype) for name, tensor in wanted.items()})


def load_coder(directory: Path) -> SparseCoder:
    """Read a coder as float32 on the CPU. Raises CheckpointError as `read_files` and `fill` do."""
    files = read_files(directory)
    with reading(directory):
        coder = SparseCoder(files.d_in, files.config, d_out=files.d_out)
    fill(coder, files, directory)
    return coder


@contextmanager
def reading(directory: Path) -> Iterator[None]:
    """Turn what goes wrong with the coder in `directory` into a CheckpointError."""
    try:
        yield
    except FileNotFoundError as error:
        missing = next(p.name for p in (CoderDir(directory).config, CoderDir(directory).weights) if not p.exists())
        raise CheckpointError(f"{directory} is not a sparse coder: it has no {missing}") from error
    except (ValidationError, KeyError, ValueError, TypeError, StopIteration, SafetensorError, RuntimeError) as error:
        raise CheckpointError(f"the sparse coder in {directory} cannot be read: {error}") from error
