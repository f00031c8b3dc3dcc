"""Hookpoint patterns -> names of modules."""

import difflib
from collections.abc import Sequence
from fnmatch import fnmatchcase

from natsort import natsorted
from torch import nn

from sparsify_core.config import RunConfig
from sparsify_core.errors import HookpointError


def resolve_hookpoints(model: nn.Module, config: RunConfig) -> list[str]:
    """Names of the modules to train on, below the base model, in natural order.

    Raises HookpointError when a pattern matches nothing (near matches are named) or a layer does not exist.
    """
    names = [name for name, _ in model.named_modules() if name]
    if config.hookpoints:
        return _matches(names, config.hookpoints)[:: config.layer_stride]
    prefix, num_layers = layer_list(model)
    for layer in config.layers:
        if layer >= num_layers:
            raise HookpointError(f"layer {layer} does not exist: the model has layers 0 to {num_layers - 1}")
    layers = sorted(set(config.layers)) or range(num_layers)
    return [f"{prefix}.{layer}" for layer in layers][:: config.layer_stride]


def layer_list(model: nn.Module) -> tuple[str, int]:
    """Name and length of the model's list of layers: its one ModuleList of `num_hidden_layers` entries.

    Raises HookpointError when there is none or more than one.
    """
    text_config = model.config.get_text_config()  # type: ignore[operator, union-attr]
    num_layers: int = text_config.num_hidden_layers
    found = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == num_layers
    ]
    if len(found) != 1:
        raise HookpointError(
            f"the model has {len(found)} module lists of {num_layers} layers, so its layers cannot be told: "
            "name the modules with hookpoints"
        )
    return found[0], num_layers


def _matches(names: Sequence[str], patterns: Sequence[str]) -> list[str]:
    matched: set[str] = set()
    for pattern in patterns:
        hits = [name for name in names if fnmatchcase(name, pattern)]
        if not hits:
            raise HookpointError(_no_match(pattern, names))
        matched.update(hits)
    ordered: list[str] = natsorted(matched)
    return ordered


def _no_match(pattern: str, names: Sequence[str]) -> str:
    for prefix in ("model.", "transformer.", "gpt_neox."):
        short = pattern.removeprefix(prefix)
        if short != pattern and any(fnmatchcase(name, short) for name in names):
            return f"no module matches hookpoint {pattern!r}: names start below the base model, write {short!r}"
    near = difflib.get_close_matches(pattern, names, n=3, cutoff=0.3) or list(names[:3])
    return f"no module matches hookpoint {pattern!r}: did you mean {', '.join(near)}?"
