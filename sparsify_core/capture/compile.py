"""Compile the language model's layers, piece by piece: as large as hookpoints allow.

What is compiled is a module's forward; hooks run around it, outside. So a layer is compiled whole unless a hookpoint
lies inside it; then its parts are. Layers of one kind share their compiled code, which keeps the wait short.
"""

from collections.abc import Collection

import torch
from torch import nn

from sparsify_core.capture.hookpoints import layer_list
from sparsify_core.config import RunConfig
from sparsify_core.errors import HookpointError


def compile_layers(model: nn.Module, hookpoints: Collection[str], config: RunConfig, device: torch.device) -> None:
    """Compile the layers of the base model `model` in place, where `config.compile_model` asks for it.

    On a CPU `auto` does not: there the compiled code is hardly faster and needs a C++ compiler.
    """
    if config.compile_model == "off" or (config.compile_model == "auto" and device.type != "cuda"):
        return
    try:
        prefix, num_layers = layer_list(model)
    except HookpointError:  # no list of layers to go through: eager always works
        return
    for layer in range(num_layers):
        _compile(model, f"{prefix}.{layer}", hookpoints)


def _compile(model: nn.Module, name: str, hookpoints: Collection[str]) -> None:
    module = model.get_submodule(name)
    if not any(hookpoint.startswith(f"{name}.") for hookpoint in hookpoints):
        module.forward = torch.compile(module.forward, dynamic=False)
        return
    for child, _ in module.named_children():
        _compile(model, f"{name}.{child}", hookpoints)
