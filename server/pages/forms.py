"""The launch form: built from the configuration's fields, parsed back into a nested configuration.

Nothing here repeats a field's name, bounds or help: `iter_fields(RunConfig)` is their one home.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, get_args

from server.pages.formatting import plain
from server.services.requests import OWNED, RunRequest
from server.services.run_values import configured
from sparsify_core.config import FieldSpec, RunConfig, iter_fields, nest
from sparsify_core.config.base import Group
from sparsify_core.config.fields import Kind


@dataclass(frozen=True)
class LaunchControl:
    """What the form must know of a field of `RunRequest` besides its bounds, default and help."""

    group: Group
    kind: Kind
    unit: str = ""
    nullable: bool = False


LAUNCH_CONTROLS = {
    "name": LaunchControl("Model and data", "str", nullable=True),
    "num_processes": LaunchControl("Compute", "int", "processes"),
    "num_nodes": LaunchControl("Compute", "int", "workers"),
    "min_memory_gb": LaunchControl("Compute", "float", "GB", nullable=True),
    "labels": LaunchControl("Compute", "list[str]"),
}
"""What a run has besides its configuration."""

_THOUSANDS = re.compile(r"\d{1,3}(,\d{3})+", re.ASCII)
_PLAINER = (
    (r"^(String should have at least 1 character|String should match pattern '\\S')", "Must not be empty"),
    (r"^String should have at most (\d+) characters", r"Must have at most \1 characters"),
    (r"^String should match pattern .*", "Must be of letters, digits, dots, dashes and underscores, 50 at most"),
    (r"^List should have at (least|most) (\d+) items? after validation.*", r"Must hold at \1 \2"),
    (r"^Value error, |, unable to parse .*$", ""),
    (r"Input should be", "must be"),
)
"""What pydantic says -> what people read."""

PREFIX = "config."
"""Form names of configuration fields are `config.<dotted name>`."""


@dataclass(frozen=True)
class Control:
    """One field as the template draws it. `value` is text, or a bool for a checkbox."""

    spec: FieldSpec
    name: str
    value: Any
    error: str = ""

    @property
    def id(self) -> str:
        return "f-" + self.name.replace(".", "-")

    @property
    def label(self) -> str:
        """The field's own name, as the command line and stored configurations have it."""
        return self.spec.flag

    @property
    def sent(self) -> str:
        """The value as a browser sends it."""
        return sent(self.value)

    @property
    def default(self) -> str:
        """Likewise."""
        return sent(to_text(self.spec, self.spec.default))

    @property
    def bounds(self) -> str:
        """`2 to 1,048,576`, `at least 1`, or nothing."""
        low, high = self.spec.minimum, self.spec.maximum
        if low is not None and high is not None:
            return f"{low:,.10g} to {high:,.10g}"
        return f"At least {low:,.10g}" if low is not None else ""

    @property
    def is_changed(self) -> bool:
        """Whether the value differs from the field's default."""
        return bool(self.value != to_text(self.spec, self.spec.default))


class Change(NamedTuple):
    """A field that differs from where the form was filled in from; values as text."""

    name: str
    before: str
    after: str


@dataclass(frozen=True)
class FormGroup:
    """A heading with its short and its further fields."""

    title: str
    basic: list[Control] = field(default_factory=list)
    more: list[Control] = field(default_factory=list)

    @property
    def id(self) -> str:
        return "g-" + self.title.lower().replace(" ", "-")

    @property
    def is_open(self) -> bool:
        return any(c.error for c in self.more)

    @property
    def num_changed(self) -> int:
        return sum(c.is_changed for c in self.more)


@dataclass(frozen=True)
class LaunchForm:
    """The whole form; `problems` are errors that belong to no single field."""

    groups: list[FormGroup]
    problems: list[str]

    @property
    def errors(self) -> list[Control]:
        return [c for g in self.groups for c in (*g.basic, *g.more) if c.error]


def specs() -> dict[str, FieldSpec]:
    """Form name -> field, launch fields first."""
    fields = {name: _launch_spec(name, field) for name, field in LAUNCH_CONTROLS.items()}
    fields |= {PREFIX + s.name: s for s in iter_fields(RunConfig) if s.name not in OWNED}
    return fields


def _launch_spec(name: str, own: LaunchControl) -> FieldSpec:
    info = RunRequest.model_fields[name]
    bounds = {type(c).__name__: getattr(c, type(c).__name__.lower(), None) for c in info.metadata}
    return FieldSpec(
        name=name,
        kind=own.kind,
        default=info.default,
        help=info.description or "",
        group=own.group,
        unit=own.unit,
        basic=True,
        nullable=own.nullable,
        minimum=bounds.get("Ge"),
        maximum=bounds.get("Le"),
    )


def to_text(spec: FieldSpec, value: Any) -> Any:
    """A configuration value as the control shows it."""
    if spec.kind == "bool":
        return value in (True, "true")
    if value is None:
        return ""
    if isinstance(value, list | tuple):
        return ("\n" if spec.kind == "list[str]" else " ").join(str(v) for v in value)
    return str(value)


def sent(value: Any) -> str:
    """A form value as a browser sends it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def values_of(config: Mapping[str, Any], **launch: Any) -> dict[str, Any]:
    """Form values of a nested configuration; fields that it does not have take their default."""
    values: dict[str, Any] = {}
    for name, spec in specs().items():
        if name.startswith(PREFIX):
            values[name] = to_text(spec, configured(config, spec.name, spec.default))
        else:
            values[name] = to_text(spec, launch.get(name, spec.default))
    return values


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Change]:
    """The fields, but for the name, whose form values differ, in the form's order."""
    return [
        Change(spec.flag, _shown(before[name]), _shown(after[name]))
        for name, spec in specs().items()
        if name != "name" and _shown(before[name]) != _shown(after[name])
    ]


def _shown(value: Any) -> str:
    return plain(value if isinstance(value, bool) else str(value).split(), "none")


def build(
    values: Mapping[str, Any], errors: Mapping[str, str] | None = None, problems: Iterable[str] = ()
) -> LaunchForm:
    """Lay the fields out in groups, with the values typed so far and their errors."""
    groups = {title: FormGroup(title) for title in get_args(Group)}
    for name, spec in specs().items():
        control = Control(spec, name, values.get(name, to_text(spec, spec.default)), (errors or {}).get(name, ""))
        (groups[spec.group].basic if spec.basic else groups[spec.group].more).append(control)
    return LaunchForm([g for g in groups.values() if g.basic or g.more], list(problems))


def parse(pairs: Iterable[tuple[str, str]]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Form pairs -> (what was typed, for showing it again; request body for validation).

    A later pair wins, so a ticked checkbox beats the hidden `false` before it. Unknown names are left out.
    """
    known = specs()
    typed: dict[str, Any] = {}
    for name, text in pairs:
        if name in known:
            # Browsers send the ends of lines as \r\n.
            typed[name] = text == "true" if known[name].kind == "bool" else text.replace("\r\n", "\n")
    flat: dict[str, Any] = {}
    for name, value in typed.items():
        spec = known[name]
        if spec.kind in ("list[int]", "list[str]"):
            flat[name] = re.split(r"[\s,]+", value.strip()) if value.strip() else []
        elif spec.kind == "bool":
            flat[name] = value
        elif spec.kind == "int" and _THOUSANDS.fullmatch(value.strip()):
            flat[name] = value.replace(",", "").strip()
        elif value.strip() == "":
            flat[name] = None if spec.nullable else ""
        else:
            flat[name] = value.strip() if spec.kind != "str" else value
    body: dict[str, Any] = {
        "config": nest({k.removeprefix(PREFIX): v for k, v in flat.items() if k.startswith(PREFIX)})
    }
    body |= {k: v for k, v in flat.items() if not k.startswith(PREFIX) and v not in (None, "")}
    return typed, body


def place_errors(errors: Iterable[tuple[tuple[Any, ...], str]]) -> tuple[dict[str, str], list[str]]:
    """Sort `(location, message)` into errors beside a field and problems on top.

    An error of a whole model (two fields that do not fit) goes to the first field that its message names.
    """
    known = specs()
    beside: dict[str, str] = {}
    problems: list[str] = []
    for location, message in errors:
        text = sentence_of(message)
        name = _field_of(location, known) or _named_in(text, known)
        if name is None:
            problems.append(text)
        else:
            beside.setdefault(name, text)
    return beside, problems


def _field_of(location: tuple[Any, ...], known: Mapping[str, FieldSpec]) -> str | None:
    parts = [str(p) for p in location if not isinstance(p, int)]
    for end in range(len(parts), 0, -1):
        name = ".".join(parts[:end])
        for candidate in (name, PREFIX + name):
            if candidate in known:
                return candidate
    return None


def _named_in(message: str, known: Mapping[str, FieldSpec]) -> str | None:
    words = re.findall(r"[a-z][a-z0-9_.]*", message)
    for word in words:
        for name, spec in known.items():
            if word.rstrip(".") == spec.name or (word.rstrip(".") == spec.flag and name.startswith(PREFIX)):
                return name
    return None


def sentence_of(message: str) -> str:
    """An error's message as people read it: `Value error, k = 9 is ...` -> `k = 9 is ... .`"""
    text = message
    for pattern, plainer in _PLAINER:
        text = re.sub(pattern, plainer, text)
    first = text.split(" ", 1)[0]
    start = text if any(first in (s.flag, s.name) for s in specs().values()) else text[:1].upper() + text[1:]
    return start + ("" if text.endswith((".", "!", "?")) else ".")
