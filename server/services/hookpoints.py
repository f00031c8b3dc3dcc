"""The modules of a model as a person picks them: those that differ only in their layer are one pattern."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from sparsify_core.errors import HookpointError
from sparsify_core.hookpoints import choose_layers, match_patterns
from sparsify_core.shape import ModelShape, ModuleShape

_INDEX = re.compile(r"(?<![^.])\d+(?![^.])")
"""A part of a path that is a number."""


@dataclass(frozen=True)
class ModuleGroup:
    """Modules that are alike.

    Args:
        label: their path, `*` for the numbers in it.
        patterns: what matches exactly them.
        widths: input and output width, for example `576 → 1,536`; several where they differ.
    """

    label: str
    kind: str
    patterns: list[str]
    widths: str
    count: int

    @property
    def depth(self) -> int:
        return self.label.count(".")


@dataclass(frozen=True)
class Match:
    """Which modules are trained on, in natural order; `problem` says why there are none.

    Args:
        counts: pattern -> how many modules it matches, each for itself.
    """

    modules: list[ModuleShape]
    problem: str = ""
    counts: Mapping[str, int] = field(default_factory=dict)


def module_groups(shape: ModelShape) -> list[ModuleGroup]:
    """The modules that can be hookpoints, in the model's order."""
    grouped: dict[str, list[ModuleShape]] = {}
    for module in shape.modules:
        if not _gives_none(module, shape):
            grouped.setdefault(_INDEX.sub("*", module.path), []).append(module)
    names = [module.path for module in shape.modules]
    return [
        ModuleGroup(
            label=label,
            kind=modules[0].kind,
            patterns=_patterns(label, [m.path for m in modules], names),
            widths=widths_of(modules),
            count=len(modules),
        )
        for label, modules in grouped.items()
    ]


def widths_of(modules: Iterable[ModuleShape]) -> str:
    """`576 → 1,536`, once for each that occurs; `?` for one that is not known."""
    return ", ".join(dict.fromkeys(f"{_width(m.d_in)} → {_width(m.d_out)}" for m in modules))


def _width(width: int | None) -> str:
    return "?" if width is None else f"{width:,}"


def _gives_none(module: ModuleShape, shape: ModelShape) -> bool:
    """Whether it is certain that a module takes or gives no vector per token."""
    return shape.knows_widths and (module.d_in is None or module.d_out is None)


def _patterns(label: str, paths: Sequence[str], names: Sequence[str]) -> list[str]:
    """`*` matches dots too, so `layers.*` means everything in the layers: then digits are asked for one by one."""
    if len(paths) == 1:
        return [paths[0]]
    if set(match_patterns(names, [label])) == set(paths):
        return [label]
    return list(dict.fromkeys(_INDEX.sub(lambda number: "[0-9]" * len(number[0]), path) for path in paths))


def match_hookpoints(
    shape: ModelShape, *, hookpoints: Sequence[str] = (), layers: Sequence[int] = (), layer_stride: int = 1
) -> Match:
    """What the trainer would choose, by its own code."""
    modules = {module.path: module for module in shape.modules}
    try:
        if hookpoints:
            chosen = match_patterns(list(modules), hookpoints)
        elif shape.layers is None:
            raise HookpointError("the layers of this model cannot be told: name the modules with hookpoints")
        else:
            chosen = choose_layers(shape.layers, shape.num_layers, layers)
    except HookpointError as error:
        return Match([], str(error))
    found = [modules[name] for name in chosen[::layer_stride]]
    for module in found:
        if _gives_none(module, shape):
            return Match([], f"{module.path} ({module.kind}) gives no vector per token: choose another")
    return Match(found, counts={pattern: len(match_patterns(list(modules), [pattern])) for pattern in hookpoints})
