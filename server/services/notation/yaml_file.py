"""YAML, as `--config FILE` takes it. JSON, sparsify's config.json too, is read as well."""

import json
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import yaml

from server.services.notation.reading import NotationError, Problem, Reading, given, nested, read
from sparsify_core.config import RunConfig
from sparsify_core.config.run import LAUNCH_SECTION
from sparsify_core.formats.upstream_config import settled

_DEEPEST = 10
"""Levels of lists and mappings in each other; a configuration has three."""
_LONGEST_NUMBER = 100
"""Characters."""
_OF_NUMBERS = set("0123456789abcdefABCDEF+-_.:xo")


def to_yaml(config: RunConfig, **launch: Any) -> str:
    """The fields that differ from their defaults, model and dataset always.

    Args:
        launch: fields of `Launch`, which stand in a section of their own; those that are None or empty are left out.
    """
    section = given(launch)
    values = ({LAUNCH_SECTION: section} if section else {}) | nested(config)
    text = _dump(values, allow_unicode=True)
    # Some control characters are written as they are, and read as line ends.
    return text if yaml.safe_load(text) == values else _dump(values, allow_unicode=False)


def _dump(values: dict[str, Any], *, allow_unicode: bool) -> str:
    text: str = yaml.safe_dump(values, sort_keys=False, allow_unicode=allow_unicode, width=100)
    return text


def from_yaml(text: str) -> Reading:
    """Raises NotationError: no YAML or JSON, or a wrong field."""
    try:
        values, names = _parse_json(text) if text.lstrip().startswith("{") else _parse(text)
    except json.JSONDecodeError as error:
        raise NotationError(Problem(f"this is not JSON: {error.msg}", error.lineno)) from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise NotationError(_damage(error)) from None
    if values is None:
        values = {}
    if twice := [*_repeated(names)]:
        raise NotationError(*twice)
    lines = dict(names)
    if not isinstance(values, dict):
        raise NotationError(Problem("write names and values, as in `model: gpt2`", 1))
    return read(settled({str(name): value for name, value in values.items()}), lambda name: _line(lines, name))


def _parse(text: str) -> tuple[Any, list[tuple[str, int]]]:
    """Values, and their names with their lines."""
    loader = _Loader(text)
    node = loader.get_single_node()
    names = [*_lines(node)]  # before merged keys (<<) are put in their places
    return None if node is None else loader.construct_document(node), names


def _repeated(names: list[tuple[str, int]]) -> Iterator[Problem]:
    """YAML and JSON take the last of values that stand there twice."""
    first: dict[str, int] = {}
    for name, line in names:
        if name in first:
            yield Problem(f"{name} stands on line {first[name]} already: keep one of them", line)
        first.setdefault(name, line)


def _parse_json(text: str) -> tuple[Any, list[tuple[str, int]]]:
    """Likewise; JSON is YAML, except for numbers as 1e-5 and some characters."""
    values, names = json.loads(text), []
    with suppress(yaml.YAMLError):
        names = [*_lines(_Loader(text).get_single_node())]
    return values, names


class _Loader(yaml.SafeLoader):
    """Refuses what takes far longer to read than it is long, or gives numbers that Python will not write out."""

    _depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Raises NotationError."""
        event = self.peek_event()  # type: ignore[no-untyped-call]
        line = event.start_mark.line + 1
        if isinstance(event, yaml.AliasEvent):
            # A few aliases of aliases would unfold to gigabytes.
            raise NotationError(Problem("aliases (*name) are not read here: write the value out", line))
        if isinstance(event, yaml.ScalarEvent) and event.implicit[0] and _is_endless(event.value):
            raise NotationError(Problem(f"this number is longer than {_LONGEST_NUMBER} characters", line))
        if isinstance(event, yaml.CollectionStartEvent) and self._depth == _DEEPEST:
            raise NotationError(Problem(f"this is nested deeper than {_DEEPEST} levels", line))
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node


def _is_endless(text: str) -> bool:
    """Whether this is a number, hexadecimal or to the base 60 too, that is too long."""
    return len(text) > _LONGEST_NUMBER and set(text) <= _OF_NUMBERS


def _damage(error: Exception) -> Problem:
    mark = getattr(error, "problem_mark", None)
    reason = getattr(error, "problem", None) or str(error).splitlines()[0]
    return Problem(f"this is not YAML: {reason}", mark.line + 1 if mark else None)


def _lines(node: Any, prefix: str = "") -> Iterator[tuple[str, int]]:
    """Dotted name -> line of its key, from 1."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            name = f"{prefix}{key.value}"
            yield name, key.start_mark.line + 1
            if not prefix:
                yield from _lines(value, f"{name}.")


def _line(lines: dict[str, int], name: str) -> int | None:
    while name and name not in lines:
        name = name.rpartition(".")[0]
    return lines.get(name)
