"""One walk over the configuration's fields. The command line, the form and the docs are views of what it yields."""

import types
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from sparsify_core.config.base import Group

Kind = Literal["int", "float", "str", "bool", "choice", "list[int]", "list[str]"]


@dataclass(frozen=True)
class FieldSpec:
    """What a view needs to know of one field.

    `name` is the dotted path in the configuration (`sae.k`), `flag` the flat name of upstream's command line (`k`).
    """

    name: str
    kind: Kind
    default: Any
    help: str
    group: Group
    unit: str = ""
    basic: bool = False
    nullable: bool = False
    choices: tuple[str, ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    visible_if: dict[str, str] = field(default_factory=dict)

    @property
    def flag(self) -> str:
        return self.name.rpartition(".")[2]


def iter_fields(model: type[BaseModel], prefix: str = "") -> Iterator[FieldSpec]:
    """Yield every leaf field of `model`, sections in declaration order."""
    for name, info in model.model_fields.items():
        annotation = _strip(info.annotation)[0]
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            yield from iter_fields(annotation, f"{prefix}{name}.")
        else:
            yield _spec(f"{prefix}{name}", info)


def nest(flat: dict[str, Any]) -> dict[str, Any]:
    """`{"sae.k": 8}` -> `{"sae": {"k": 8}}`."""
    nested: dict[str, Any] = {}
    for name, value in flat.items():
        *parents, leaf = name.split(".")
        node = nested
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = value
    return nested


def _strip(annotation: Any) -> tuple[Any, bool]:
    """Remove `Annotated` and `| None`; tell whether None was allowed."""
    if get_origin(annotation) is Annotated:
        return _strip(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        members = [m for m in get_args(annotation) if m is not type(None)]
        if len(members) != 1:
            raise TypeError(f"a configuration field may be one type or None, got {annotation}")
        return _strip(members[0])[0], len(members) < len(get_args(annotation))
    return annotation, False


def _spec(name: str, info: FieldInfo) -> FieldSpec:
    annotation, nullable = _strip(info.annotation)
    kind, choices = _kind(annotation)
    extra = info.json_schema_extra if isinstance(info.json_schema_extra, dict) else {}
    return FieldSpec(
        name=name,
        kind=kind,
        default=info.get_default(call_default_factory=True),
        help=(info.description or "").strip(),
        group=extra["group"],  # type: ignore[arg-type]
        unit=str(extra.get("unit", "")),
        basic=bool(extra.get("basic", False)),
        nullable=nullable,
        choices=choices,
        minimum=_bound(info, "ge", "gt"),
        maximum=_bound(info, "le", "lt"),
        visible_if=extra.get("visible_if", {}),  # type: ignore[arg-type]
    )


def _kind(annotation: Any) -> tuple[Kind, tuple[str, ...]]:
    if get_origin(annotation) is Literal:
        return "choice", tuple(str(a) for a in get_args(annotation))
    if get_origin(annotation) is list:
        return ("list[int]" if get_args(annotation)[0] is int else "list[str]"), ()
    kinds: dict[type, Kind] = {bool: "bool", int: "int", float: "float", str: "str"}
    return kinds[annotation], ()


def _bound(info: FieldInfo, *names: str) -> float | None:
    for constraint in info.metadata:
        for name in names:
            value = getattr(constraint, name, None)
            if value is not None:
                return float(value)
    return None
