"""Options of upstream that the trainer does not carry out yet.

They are part of the schema, so that upstream's configurations can be read and shown, and are refused when asked for:
nothing is silently ignored. A line is removed when its option is built.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sparsify_core.config.run import RunConfig

_BUILT: dict[str, tuple[Any, ...]] = {
    "load_in_8bit": (False,),
}
"""Dotted field name -> the values that the trainer carries out."""


def refuse_pending(config: "RunConfig") -> None:
    """Raise ValueError naming the first field whose value is not built yet."""
    for name, built in _BUILT.items():
        value: Any = config
        for part in name.split("."):
            value = getattr(value, part)
        if value not in built:
            allowed = " or ".join(str(v) for v in built)
            raise ValueError(f"{name} = {value} is not built yet in this version: use {allowed}")
