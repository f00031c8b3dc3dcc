"""Compile the language model's layers, piece by piece: as large as hookpoints allow.

What is compiled is a module's forward; hooks run around it, outside. So a layer is compiled whole unless a hookpoint
lies inside it; then its parts are. Layers of one kind share their compiled code, which keeps the wait short. Within
them, MLPs are exchanged for a kernel where there is one.
"""

from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress

import torch
from torch import nn

from sparsify_core.capture.forwards import exchanged_forwards
from sparsify_core.capture.hookpoints import layer_list
from sparsify_core.capture.mlp import fused_mlps
from sparsify_core.config import RunConfig
from sparsify_core.errors import HookpointError


@contextmanager
def compiled_layers(
    model: nn.Module, hookpoints: Collection[str], config: RunConfig, device: torch.device
) -> Iterator[None]:
    """Inside, the layers of the base model `model` are compiled where `config.compile_model` asks for it.

    On a CPU `auto` does not: there the compiled code is hardly faster and needs a C++ compiler.
    """
    compiled: list[nn.Module] = []
    if config.compile_model == "on" or (config.compile_model == "auto" and device.type == "cuda"):
        with suppress(HookpointError):  # no list of layers to go through: eager always works
            prefix, num_layers = layer_list(model)
            for layer in range(num_layers):
                compiled += _largest_pieces(model, f"{prefix}.{layer}", hookpoints)
    with (
        exchanged_forwards(fused_mlps(compiled)),
        exchanged_forwards({module: torch.compile(module.forward, dynamic=False) for module in compiled}),
    ):
        yield


def _largest_pieces(model: nn.Module, name: str, hookpoints: Collection[str]) -> list[nn.Module]:
    """The module `name`, or the largest modules below it that have no hookpoint inside."""
    module = model.get_submodule(name)
    if not any(hookpoint.startswith(f"{name}.") for hookpoint in hookpoints):
        return [module]
    names = [f"{name}.{child}" for child, _ in module.named_children()]
    return [piece for child in names for piece in _largest_pieces(model, child, hookpoints)]
