"""What a hook sees of a module -> one row per token."""

from typing import Any

from torch import Tensor

from sparsify_core.errors import HookpointError


def first_input(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The module's main input: decoder layers and attention are called by keyword in recent models."""
    if args:
        return args[0]
    if "hidden_states" in kwargs:
        return kwargs["hidden_states"]
    return next((value for value in kwargs.values() if isinstance(value, Tensor) and value.is_floating_point()), None)


def first_output(output: Any) -> Any:
    """The module's main output: element 0 of a tuple."""
    return output[0] if isinstance(output, tuple) else output


def token_rows(value: Any, name: str, what: str) -> Tensor:
    """(B, L, D) of any float dtype -> (B * L, D) of the same, with its graph if it has one.

    Args:
        name: the hookpoint, for the message.
        what: "input" or "output".

    Raises HookpointError when `value` is something else.
    """
    if not isinstance(value, Tensor) or not value.is_floating_point() or value.dim() != 3:
        kind = f"{value.dtype} of shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
        raise HookpointError(
            f"the {what} of {name} is not a tensor (batch, token, width) of numbers but {kind}: choose another"
        )
    return value.flatten(0, 1)
