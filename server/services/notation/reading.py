"""What a text says, and what is wrong with it. Shared by the notations."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from server.services.requests import Launch
from sparsify_core.config import RunConfig, nest
from sparsify_core.config.fields import iter_fields
from sparsify_core.config.run import LAUNCH_SECTION
from sparsify_core.flags import TOKEN_REFUSED

_ELSEWHERE = ("save_dir", "resume")
"""Fields that Sparseboard decides itself: a text that was written for the bare command line may have them."""


@dataclass(frozen=True)
class Problem:
    """A sentence, and the line of the text that it is about, from 1; None where it is about all of it."""

    message: str
    line: int | None = None


class NotationError(Exception):
    """A text is not a configuration; `problems` says where and why."""

    def __init__(self, *problems: Problem) -> None:
        super().__init__("; ".join(problem.message for problem in problems))
        self.problems = problems


@dataclass(frozen=True)
class Reading:
    """A configuration, what else the text asks for (fields of `Launch`), and what was left out of it."""

    config: RunConfig
    launch: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def changed(config: RunConfig) -> dict[str, Any]:
    """Dotted name -> value of the fields that differ from their defaults; model and dataset always, and first."""
    values = {"model": config.model, "dataset": config.dataset}
    for spec in iter_fields(RunConfig):
        value: Any = config
        for part in spec.name.split("."):
            value = getattr(value, part)
        if value != spec.default:
            values[spec.name] = value
    return values


def read(values: Mapping[str, Any], line_of: Callable[[str], int | None], **launch: Any) -> Reading:
    """Nested values, ours or sparsify's, as a `Reading`.

    Args:
        line_of: dotted name -> the line on which the text says it.
        launch: what the text asks for besides; a section `run` says all of it.

    Raises NotationError with a problem for every wrong field.
    """
    values = dict(values)
    if values.pop("hf_token", None) is not None:
        raise NotationError(Problem(TOKEN_REFUSED, line_of("hf_token")))
    notes = []
    for name in _ELSEWHERE:
        if values.pop(name, None) not in (None, RunConfig.model_fields[name].default):
            notes.append(f"{name} is left out: Sparseboard decides it for every run.")
    if LAUNCH_SECTION in values:
        launch = launch_of(values.pop(LAUNCH_SECTION), line_of, below=(LAUNCH_SECTION,))
    if (run_name := values.pop("run_name", None)) is not None:
        launch["name"] = launch.get("name") or str(run_name)
    try:
        return Reading(RunConfig.model_validate(values), launch, tuple(notes))
    except ValidationError as error:
        raise NotationError(*(_problem(item, line_of) for item in error.errors())) from None


def launch_of(values: Any, line_of: Callable[[str], int | None], *, below: tuple[str, ...] = ()) -> dict[str, Any]:
    """All fields of `Launch`; those that are not among the values have their default.

    Args:
        below: the section in which the values stand.

    Raises NotationError with a problem for every wrong field.
    """
    if not isinstance(values, dict | None):
        raise NotationError(Problem("write names and values below run, as in `name: fox`", line_of(".".join(below))))
    try:
        return Launch.model_validate({str(name): value for name, value in (values or {}).items()}).model_dump()
    except ValidationError as error:
        found = error.errors()
        raise NotationError(*(_problem({**one, "loc": (*below, *one["loc"])}, line_of) for one in found)) from None


def _problem(error: Any, line_of: Callable[[str], int | None]) -> Problem:
    parts = [str(part) for part in error["loc"] if not isinstance(part, int)]
    name = ".".join(parts)
    message = str(error["msg"]).removeprefix("Value error, ")
    if error["type"] == "value_error":  # of several fields: the first that it names
        named = (spec.name for word in message.split() for spec in iter_fields(RunConfig) if spec.flag == word)
        return Problem(message, line_of(next(named, name)))
    if error["type"] == "extra_forbidden":
        return Problem(f"{name}: there is no such field", line_of(name))
    return Problem(f"{name}: {message[:1].lower()}{message[1:]}", line_of(name))


def nested(config: RunConfig) -> dict[str, Any]:
    """`changed`, as configuration files have it."""
    return nest(changed(config))


def given(launch: Mapping[str, Any]) -> dict[str, Any]:
    """What a run is asked for with, without what is None or empty."""
    return {name: value for name, value in launch.items() if value not in (None, "", [])}
