"""What all configuration models share: frozen, strict about unknown keys, documented at the field."""

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, model_validator
from pydantic.config import JsonDict

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


_POWER = re.compile(r"\d{1,20}(\.\d{1,20})?[eE]\+?\d{1,2}", re.ASCII)


def whole(text: str) -> Any:
    """`1e9`, as people write many tokens, as an integer; any other text as it is."""
    if not _POWER.fullmatch(text):
        return text
    number = Decimal(text)
    return int(number) if number == int(number) else text


class Config(BaseModel):
    """A frozen configuration model; an attribute's docstring is its help text."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _powers_of_ten(cls, values: Any, info: ValidationInfo) -> Any:
        """Forms, flags and YAML have `1e9` as a text, which pydantic takes for no integer. JSON has integers."""
        if info.mode == "json" or not isinstance(values, dict):
            return values
        integers = {name for name, info in cls.model_fields.items() if info.annotation in (int, int | None)}
        return {
            name: whole(value) if name in integers and isinstance(value, str) else value
            for name, value in values.items()
        }


def option(
    default: Any,
    group: Group,
    *,
    unit: str = "",
    basic: bool = False,
    visible_if: Mapping[str, str] | None = None,
    **constraints: Any,
) -> Any:
    """A field with the metadata that the form, the command line and the docs need.

    Args:
        default: its default; `...` makes it required.
        group: the heading that it stands under.
        unit: unit of the value, shown beside it.
        basic: whether the short form shows it.
        visible_if: on which values of other fields it has an effect, as dotted name -> pattern of the value's text:
            alternatives by `|`, `*` in front of an ending, `!` in front of the whole for none of them. A form may hide
            the field otherwise, while it has its default.
        constraints: pydantic bounds (`ge`, `gt`, `le`, `lt`, `min_length`, `max_length`, `pattern`).
    """
    extra: JsonDict = {"group": group, "unit": unit, "basic": basic, "visible_if": {**(visible_if or {})}}
    return Field(default, json_schema_extra=extra, **constraints)
