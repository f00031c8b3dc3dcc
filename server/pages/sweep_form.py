"""The sweep section of the launch form: rows of a field and its values, which make one run of many."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from server.pages.forms import sentence_of
from server.services.sweep_spec import MAX_AXES, SweepRequest, sweepable
from sparsify_core.config import FieldSpec
from sparsify_core.config.base import whole

NUM_ROWS = 3
"""Rows of the form, unless somebody asks for more."""
_WORDS: Mapping[str, Any] = {"true": True, "yes": True, "false": False, "no": False, "automatic": None}
Errors = list[tuple[tuple[Any, ...], str]]
"""Location and message of each."""
_OWN = ("axes", "draws", "seed", "runs")
"""Parts of a SweepRequest that this section shows the errors of."""


@dataclass(frozen=True)
class SweepForm:
    """What was typed: `(field, values)` of every row, and what is wrong or will come of it."""

    rows: list[tuple[str, str]]
    draws: str = ""
    seed: str = ""
    problems: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    """Of the runs that it makes, when it was asked for."""

    @property
    def is_used(self) -> bool:
        return any(name or values.strip() for name, values in self.rows)

    @property
    def has_room(self) -> bool:
        """Whether another field can be added."""
        return len(self.rows) < MAX_AXES

    @property
    def fields(self) -> list[str]:
        """Those that are chosen."""
        return [name for name, _ in self.rows if name]

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """What is filled in, as a browser sends it."""
        rows = [
            pair for name, text in self.rows if name or text for pair in (("sweep.field", name), ("sweep.values", text))
        ]
        return [
            *rows,
            *((f"sweep.{name}", text) for name, text in (("draws", self.draws), ("seed", self.seed)) if text),
        ]

    def request(self, base: dict[str, Any]) -> SweepRequest:
        """What is asked for, with the rest of the form as `base`. Raises ValidationError."""
        body: dict[str, Any] = {"base": base, "axes": [axis_of(*row) for row in self.rows if row != ("", "")]}
        body |= {name: text for name, text in (("draws", self.draws), ("seed", self.seed)) if text}
        return SweepRequest.model_validate(body)

    def refused(self, errors: Errors) -> "SweepForm":
        """With the errors that are of this section."""
        found = list(dict.fromkeys(_sentence(*error) for error in errors if self._owns(error[0])))
        return SweepForm(self.rows, self.draws, self.seed, found)

    def others(self, errors: Errors) -> Errors:
        """The errors that belong to the rest of the form, as those of a single run."""
        left = [(loc, message) for loc, message in errors if not self._owns(loc)]
        return [(loc[1:] if loc[:1] == ("base",) else loc, message) for loc, message in left]

    def _owns(self, loc: tuple[Any, ...]) -> bool:
        return loc[0] in _OWN if loc else self.is_used


def read(pairs: Iterable[tuple[str, str]] = ()) -> SweepForm:
    """What a browser sent, padded to the rows of the form."""
    typed: dict[str, list[str]] = {}
    for name, text in pairs:
        typed.setdefault(name, []).append(text.strip())
    rows = list(zip(typed.get("sweep.field", []), typed.get("sweep.values", []), strict=False))
    rows += [("", "")] * (NUM_ROWS - len(rows))
    found = SweepForm(rows, typed.get("sweep.draws", [""])[-1], typed.get("sweep.seed", [""])[-1])
    if "sweep.more" in typed and found.has_room:
        rows.append(("", ""))
    return found


def again(spec: Mapping[str, Any]) -> SweepForm:
    """The rows of a sweep that was made before."""
    rows = [(axis["field"], _axis_text(axis)) for axis in spec["axes"]]
    draws, seed = spec["draws"] or "", spec["seed"] or ""
    lost = [name for name, text in rows if not text]
    problems = [f"The values of {name} cannot be written here: make the sweep over REST." for name in lost]
    return SweepForm(rows + [("", "")] * (NUM_ROWS - len(rows)), str(draws), str(seed), problems)


def _axis_text(axis: Mapping[str, Any]) -> str:
    """What `axis_of` reads as the same axis; empty where nothing is."""
    if axis["values"] is None:
        return f"{axis['low']}..{axis['high']} {axis['scale']}"
    is_list = any(isinstance(value, list) for value in axis["values"])
    text = ("\n" if is_list else " ").join(_text(value) for value in axis["values"])
    return text if axis_of(axis["field"], text).get("values") == axis["values"] else ""


def _text(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(map(str, value))
    return {True: "true", False: "false", None: "automatic"}[value] if isinstance(value, bool | None) else str(value)


def choices() -> dict[str, list[str]]:
    """The fields that can vary, under their headings."""
    groups: dict[str, list[str]] = {}
    for name, spec in sweepable().items():
        groups.setdefault(spec.group, []).append(name)
    return groups


def axis_of(name: str, text: str) -> dict[str, Any]:
    """`1e-4..1e-2 log`, or values with spaces, commas or lines between them; lists stand one to a line."""
    spec = sweepable().get(name)
    if spec is not None and spec.kind in ("int", "float") and (bounds := _bounds(text)):
        return {"field": name} | bounds
    if spec is not None and spec.kind.startswith("list"):
        lines = [re.split(r"[\s,]+", line.strip()) for line in text.splitlines() if line.strip()]
        return {"field": name, "values": [[_value(spec, word) for word in line] for line in lines]}
    words = [word for word in re.split(r"[\s,]+", text) if word]
    return {"field": name} | ({"values": [_value(spec, word) for word in words]} if words else {})


def _bounds(text: str) -> dict[str, str] | None:
    """`LOW..HIGH`, with `log` or `linear` behind it; None for anything else."""
    before, _, after = text.partition("..")
    match before.split(), after.split():
        case [low], [high]:
            return {"low": low, "high": high, "scale": "linear"}
        case [low], [high, "log" | "linear" as scale]:
            return {"low": low, "high": high, "scale": scale}
    return None


def _sentence(loc: tuple[Any, ...], message: str) -> str:
    """A run or a field that a message begins with, `k=64: ...`, is left as it is."""
    text, sentence = message.removeprefix("Value error, "), sentence_of(message)
    begins_with_name = loc[:1] == ("runs",) or text.partition(":")[0] in sweepable()
    return text[:1] + sentence[1:] if begins_with_name else sentence


def _value(spec: FieldSpec | None, word: str) -> Any:
    """A word as the field's type; one that does not fit stays text, which the field refuses with its reason."""
    if spec is None or spec.kind in ("str", "choice", "list[str]"):
        return word
    if word.lower() in _WORDS:
        return _WORDS[word.lower()]
    try:
        return float(word) if spec.kind == "float" else int(whole(word))
    except ValueError:
        return word
