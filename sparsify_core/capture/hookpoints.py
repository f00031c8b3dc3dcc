"""Which modules of a model are trained on."""

from torch import nn

from sparsify_core.config import RunConfig
from sparsify_core.errors import HookpointError
from sparsify_core.hookpoints import choose_layers, match_patterns


def resolve_hookpoints(model: nn.Module, config: RunConfig) -> list[str]:
    """Names of the modules to train on, below the base model, in natural order.

    Raises HookpointError when a pattern matches nothing (near matches are named) or a layer does not exist.
    """
    if config.hookpoints:
        names = [name for name, _ in model.named_modules() if name]
        return match_patterns(names, config.hookpoints)[:: config.layer_stride]
    return choose_layers(*layer_list(model), config.layers)[:: config.layer_stride]


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
