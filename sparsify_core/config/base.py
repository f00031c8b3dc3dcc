"""What all configuration models share: frozen, strict about unknown keys, documented at the field."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Group = Literal[
    "Model and data",
    "Hookpoints",
    "Sparse coder",
    "Loss",
    "Optimizer",
    "Batching",
    "Evaluation",
    "Saving",
    "Compute",
    "Logging",
]
"""Headings under which fields stand in the form, in `--help` and in the docs; this order is theirs too."""


class Config(BaseModel):
    """A frozen configuration model; an attribute's docstring is its help text."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)


def option(default: Any, group: Group, *, unit: str = "", basic: bool = False, **constraints: Any) -> Any:
    """A field with the metadata that the form, the command line and the docs need.

    Args:
        default: its default; `...` makes it required.
        group: the heading that it stands under.
        unit: unit of the value, shown beside it.
        basic: whether the short form shows it.
        constraints: pydantic bounds (`ge`, `gt`, `le`, `lt`, `min_length`, `max_length`, `pattern`).
    """
    return Field(default, json_schema_extra={"group": group, "unit": unit, "basic": basic}, **constraints)
