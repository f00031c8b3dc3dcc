"""The layers below the first hookpoint: whatever is spliced in above them, they compute the same."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn

from sparsify_core.capture.forwards import exchanged_forwards
from sparsify_core.capture.hookpoints import layer_list
from sparsify_core.capture.readout import PROBE_ERRORS, probe_ids
from sparsify_core.errors import HookpointError


def shared_layers(base: nn.Module, hookpoints: Sequence[str], *, needs_inputs: bool) -> list[nn.Module]:
    """The layers of the base model `base` that `run_once` may keep from running again; none where that cannot be told,
    or where a trial on a few tokens shows that it changes what the model computes.

    Args:
        needs_inputs: whether the input of a hookpoint is looked at. Otherwise a layer that is one itself is shared too.
    """
    try:
        prefix, _ = layer_list(base)
    except HookpointError:
        return []
    if not all(name.startswith(f"{prefix}.") for name in hookpoints):
        return []
    places = [name.removeprefix(f"{prefix}.").partition(".") for name in hookpoints]
    first = min(int(layer) for layer, _, _ in places)
    inside = any(int(layer) == first and part for layer, _, part in places)
    layers = [base.get_submodule(f"{prefix}.{i}") for i in range(first if inside or needs_inputs else first + 1)]
    return layers if _changes_nothing(base, layers) else []


@contextmanager
def run_once(layers: Sequence[nn.Module]) -> Iterator[None]:
    """Inside, the consecutive layers `layers` compute in the first forward only, without a graph. In later ones, which
    must be of the same tokens, each returns at once what the last of them returned in the first.
    """
    outputs: list[Any] = []
    with exchanged_forwards({layer: partial(_once, outputs, layer.forward, layer is layers[-1]) for layer in layers}):
        yield


@torch.no_grad()
def _once(outputs: list[Any], forward: Callable[..., Any], is_last: bool, *args: Any, **kwargs: Any) -> Any:
    if outputs:
        return outputs[0]
    output = forward(*args, **kwargs)
    if is_last:
        outputs.append(output)
    return output


@torch.no_grad()
def _changes_nothing(base: Any, layers: Sequence[nn.Module]) -> bool:
    """Models may hand more from layer to layer than what a layer returns."""
    ids = probe_ids(base)
    with run_once(layers):
        try:
            whole, shortened = (base(input_ids=ids, use_cache=False)[0] for _ in range(2))
        except PROBE_ERRORS:
            return False
    return torch.equal(whole, shortened)
