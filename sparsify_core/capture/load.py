"""Load the language model whose activations are learned."""

import os
import struct
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sparsify_core import eight_bit
from sparsify_core.config import RunConfig
from sparsify_core.errors import ModelError

LOAD_ERRORS = (OSError, ValueError, KeyError, ImportError, RuntimeError, struct.error)
"""What a failed `from_pretrained` raises; struct.error is what a damaged GGUF file ends in."""


def load_model(config: RunConfig, device: torch.device) -> nn.Module:
    """The model, frozen, in eval mode, on `device`: the base model, or with its head where loss or evaluation need it.

    Raises ModelError when it cannot be found or loaded, or lacks the head, ConfigError where 8 bits cannot be had.
    """
    import transformers  # slow to import, and --help must be instant

    if config.load_in_8bit:
        eight_bit.require("load_in_8bit", device, otherwise="leave load_in_8bit out")
    check_path(config.model)
    with_head = config.loss_fn != "fvu" or config.eval_downstream
    loader: Any = transformers.AutoModelForCausalLM if with_head else transformers.AutoModel
    try:
        model, info = loader.from_pretrained(
            **model_source(config.model),
            **_weights_format(config, device),
            revision=config.revision,
            dtype=model_dtype(config, device),
            use_safetensors=True,
            output_loading_info=True,
        )
    except LOAD_ERRORS as error:
        raise ModelError(load_failure("model", config.model, error)) from error
    if with_head and info["missing_keys"]:  # transformers would go on with random weights
        missing = ", ".join(sorted(info["missing_keys"])[:3])
        reason, way_out = (
            ("downstream evaluation", "leave it out")
            if config.loss_fn == "fvu"
            else (f"loss_fn = {config.loss_fn}", "use loss_fn fvu")
        )
        raise ModelError(
            f"model {config.model!r} comes without {missing}, and {reason} needs the model's predictions: "
            f"give a causal language model, or {way_out}"
        )
    model.requires_grad_(False)
    model.eval()
    loaded: nn.Module = model if with_head else model.base_model
    return loaded if config.load_in_8bit else loaded.to(device)


def model_source(name: str) -> dict[str, str]:
    """Arguments that tell `from_pretrained` where to look: at the Hub, in a folder, or in a GGUF file."""
    path = Path(name).expanduser()
    if not is_gguf(name):
        return {"pretrained_model_name_or_path": str(path) if path.is_dir() else name}
    # Absolute, or a file of the same name in the working directory would be taken instead.
    return {"pretrained_model_name_or_path": str(path.parent), "gguf_file": str(path.absolute())}


def is_gguf(name: str) -> bool:
    """Whether the model `name` is a GGUF file."""
    return name.endswith(".gguf")


def _weights_format(config: RunConfig, device: torch.device) -> dict[str, Any]:
    from transformers import BitsAndBytesConfig, GgufConfig  # see load_model

    if config.load_in_8bit:
        # Weights are packed on the device that they are loaded to, and cannot be moved afterwards.
        packed = BitsAndBytesConfig(load_in_8bit=True)  # type: ignore[no-untyped-call]
        return {"quantization_config": packed, "device_map": {"": device}}
    if is_gguf(config.model):
        # Packed weights need kernels that transformers would download as code, and that no gradient passes through.
        return {"quantization_config": GgufConfig(dequantize=True)}
    return {}


def model_dtype(config: RunConfig, device: torch.device) -> torch.dtype:
    """Auto never chooses float16, which the model may overflow, except for 8-bit weights: they are multiplied in it."""
    if config.dtype == "auto" and config.load_in_8bit:
        return torch.float16
    if config.dtype == "auto":
        has_bfloat16 = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if has_bfloat16 else torch.float32
    dtype: torch.dtype = getattr(torch, config.dtype)
    return dtype


def load_failure(what: str, name: str, error: Exception) -> str:
    """One sentence for a failed `from_pretrained`, without the library's advice about tokens and pull requests."""
    if os.environ.get("HF_HUB_OFFLINE") == "1" and not Path(name).exists():
        return (
            f"{what} {name!r} is not on this machine, and HF_HUB_OFFLINE=1 forbids to download it: "
            "give a local folder, or unset HF_HUB_OFFLINE"
        )
    text = str(error).strip()
    if "is not a local folder and is not a valid model identifier" in text or "Repository Not Found" in text:
        return (
            f"{what} {name!r} is neither a folder here nor a model on the Hugging Face Hub: "
            "check the spelling, and set HF_TOKEN if it is private"
        )
    if "safetensors" in text and "does not appear to have a file" in text:
        return f"{what} {name!r} has no safetensors weights, and pickled ones are never loaded: convert it first"
    if "trust_remote_code" in text:
        return (
            f"{what} {name!r} needs code of its own, which is never run: "
            "choose one of an architecture that transformers knows"
        )
    if "gated repo" in text:
        return f"{what} {name!r} is gated: accept its terms on the Hugging Face Hub and set HF_TOKEN"
    if "couldn't connect" in text or "Connection error" in text or "LocalEntryNotFound" in text:
        return f"{what} {name!r} is not on this machine and the Hugging Face Hub cannot be reached: give a local folder"
    first_line = text.splitlines()[0] if text else type(error).__name__
    if is_gguf(name):
        return f"{what} {name!r} cannot be loaded, it is damaged or of an architecture not known here: {first_line}"
    return f"{what} {name!r} cannot be loaded: {first_line}"


def check_path(name: str) -> None:
    """Say what is wrong with a path before the Hub's client takes it for a model id."""
    path = Path(name).expanduser()
    looks_like_path = name.startswith(("/", "./", "../", "~")) or name.count("/") > 1
    if is_gguf(name):
        if not path.is_file():
            raise ModelError(f"model file {name} does not exist: check the path, a GGUF file must lie on this machine")
        return
    if path.is_file():
        raise ModelError(f"model {name} is a file: give a folder, a .gguf file, or a Hugging Face model id")
    if looks_like_path and not path.is_dir():
        raise ModelError(f"model folder {name} does not exist: check the path, or give a Hugging Face model id")
    if path.is_dir() and not (path / "config.json").is_file():
        raise ModelError(f"model folder {name} has no config.json: it is not a Hugging Face model")
