"""What a person may ask for: the one model behind the form, the REST API and the command line."""

import json
import re
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError, ValidationError

from server.db.tables import Run
from server.scheduling import GB, Label
from server.services.text import unwanted_character
from sparsify_core.config import RunConfig

LARGEST_INT = 2**53
"""Integers beyond it are not exact in every JSON reader."""

_PATTERN = re.compile(r"[\w.*?\[\]!-]{1,200}")
_CACHE_NAME = re.compile(r"[\w-][\w.-]{0,99}", re.ASCII)
OWNED = ("run_name", "save_dir", "resume")
"""Configuration fields that Sparseboard decides: every run has a name, a folder and a resume point of its own."""


def visible(name: str | None) -> str | None:
    """A name without spaces around it, None when nothing is left. Raises ValueError for invisible characters."""
    if name is None or not name.strip():
        return None
    found = unwanted_character(name)
    if found:
        raise ValueError(f"the name holds the invisible character {found}: remove it")
    return name.strip()


class Launch(BaseModel):
    """What a run is asked for with, besides its configuration."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    name: Annotated[str | None, Field(max_length=200), AfterValidator(visible)] = None
    """What you will recognise the run by; empty gives it a random name."""

    num_processes: Annotated[int, Field(ge=1, le=64)] = 1
    """Training processes on each node: one per GPU, or 1 on a CPU."""

    num_nodes: Annotated[int, Field(ge=1, le=64)] = 1
    """Workers that train the run together: all of them at once, or it waits."""

    min_memory_gb: Annotated[float | None, Field(gt=0, le=100_000, allow_inf_nan=False)] = None
    """Memory that every GPU must have in all; empty takes any."""

    labels: Annotated[list[Label], Field(max_length=20)] = []
    """What every worker of the run must be labelled with, for example a100."""


class RunRequest(Launch):
    """A run to be queued."""

    config: RunConfig
    """How to train."""

    @model_validator(mode="after")
    def _limits(self) -> Self:
        problems = [
            InitErrorDetails(type=error, loc=loc, input=value) for loc, value, error in _config_problems(self.config)
        ]
        if self.min_memory_gb is not None and self.config.device == "cpu":
            error = PydanticCustomError("without_effect", "the run trains on the CPU: leave min_memory_gb out")
            problems.append(InitErrorDetails(type=error, loc=("min_memory_gb",), input=self.min_memory_gb))
        if problems:
            raise ValidationError.from_exception_data("RunRequest", problems)
        return self


LAUNCH_FIELDS = tuple(Launch.model_fields)


def launch_values(run: Run) -> dict[str, Any]:
    """`LAUNCH_FIELDS` as a run was asked for with them."""
    return {
        "name": run.name,
        "num_processes": run.num_processes,
        "num_nodes": run.num_nodes,
        "min_memory_gb": None if run.min_memory_bytes is None else run.min_memory_bytes / GB,
        "labels": run.labels,
    }


def with_values(base: RunRequest, values: dict[str, Any], *, name: str | None) -> RunRequest:
    """`base` with another name and other values of some fields, by their dotted names. Raises ValidationError."""
    asked = base.model_dump(mode="json") | {"name": name}
    for dotted, value in values.items():
        *parents, leaf = dotted.split(".")
        node = asked["config"]
        for parent in parents:
            node = node[parent]
        node[leaf] = value
    return RunRequest.model_validate_json(json.dumps(asked), strict=True)


def _config_problems(config: RunConfig) -> Iterator[tuple[tuple[str | int, ...], Any, PydanticCustomError]]:
    """What a server refuses although the bare command line takes it: where, the value, and why."""
    for name in OWNED:
        if (value := getattr(config, name)) != RunConfig.model_fields[name].default:
            error = PydanticCustomError("owned", "Sparseboard sets {name} itself: leave it out", {"name": name})
            yield ("config", name), value, error
    cache = config.cache_activations
    if cache is not None and not _CACHE_NAME.fullmatch(cache):
        message = "give a name of letters, digits, dots, dashes and underscores, no path"
        yield ("config", "cache_activations"), cache, PydanticCustomError("cache_name", message)
    for loc, value in _leaves(config.model_dump(), ("config",)):
        if isinstance(value, int) and abs(value) > LARGEST_INT:
            yield loc, value, PydanticCustomError("too_large", "the largest number taken here is 2^53")
        if isinstance(value, str) and unwanted_character(value):
            message = "the text holds an invisible character: remove it"
            yield loc, value, PydanticCustomError("control_character", message)
    for index, pattern in enumerate(config.hookpoints):
        if wrong := _hookpoint_error(pattern, config.hookpoints[:index]):
            yield ("config", "hookpoints", index), pattern, wrong


def _hookpoint_error(pattern: str, before: Sequence[str]) -> PydanticCustomError | None:
    """What is wrong with a pattern that stands behind others."""
    if not _PATTERN.fullmatch(pattern) or pattern.count("*") > 8:
        message = "not a module name or pattern; write it as in layers.5 or layers.*.mlp"
        return PydanticCustomError("hookpoint", message)
    return PydanticCustomError("duplicate", "this hookpoint stands there twice") if pattern in before else None


def _leaves(node: Any, loc: tuple[str | int, ...]) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    if isinstance(node, dict):
        for key, value in node.items():
            yield from _leaves(value, (*loc, key))
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from _leaves(value, (*loc, index))
    else:
        yield loc, node
