"""What a sweep is made of: a run, the fields that vary, and which combinations of their values are tried."""

import itertools
import json
import math
import random
from collections.abc import Iterator
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from server.errors import FieldProblem, InvalidError, field_problems
from server.services.requests import OWNED, RunRequest, with_values
from sparsify_core.config import FieldSpec, RunConfig, iter_fields

MAX_RUNS = 500
MAX_AXES = 8
_MAX_PROBLEMS = 20
"""Of so many refused runs the answer says why."""
_TRIES = 50
"""Draws for every run that is wanted: a small space gives the same combination again and again."""


def sweepable() -> dict[str, FieldSpec]:
    """The fields that a sweep may vary, by dotted name."""
    return {spec.name: spec for spec in iter_fields(RunConfig) if spec.name not in OWNED}


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)


class Axis(_Strict):
    """One field that varies: over `values`, or drawn from `low` to `high`."""

    field: str
    """Dotted name in the configuration, for example sae.k."""

    values: Annotated[list[Any], Field(min_length=1, max_length=MAX_RUNS)] | None = None
    """What it takes."""

    low: float | None = None
    high: float | None = None
    """Bounds that values are drawn from, both included; needs `draws`."""

    scale: Literal["linear", "log"] = "linear"
    """How densely: log draws as many from 1e-4 to 1e-3 as from 1e-3 to 1e-2."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        spec = sweepable().get(self.field)
        if spec is None:
            raise ValueError(f"{self.field!r} is no field of a configuration that can vary, such as sae.k or lr")
        if (self.values is None) == (self.low is None or self.high is None):
            raise ValueError(f"{self.field}: give either values, or low and high")
        if self.values is not None:
            written = [json.dumps(value, sort_keys=True) for value in self.values]
            for text in written:
                if written.count(text) > 1:
                    raise ValueError(f"{self.field}: the value {text} stands there twice")
            return self
        if spec.kind not in ("int", "float"):
            raise ValueError(f"{self.field} is no number: give its values")
        return self._bounds_fit(self.low or 0.0, self.high or 0.0)

    def _bounds_fit(self, low: float, high: float) -> Self:
        if low >= high:
            raise ValueError(f"{self.field}: low = {low:g} is not less than high = {high:g}")
        if self.scale == "log" and low <= 0:
            raise ValueError(f"{self.field}: a log scale starts above 0, not at low = {low:g}")
        return self


class SweepRequest(_Strict):
    """Many runs that differ in a few fields."""

    base: RunRequest
    """What they share; its name is the sweep's."""

    axes: Annotated[list[Axis], Field(min_length=1, max_length=MAX_AXES)]
    """The fields that vary."""

    draws: Annotated[int | None, Field(ge=1, le=MAX_RUNS)] = None
    """Runs to draw at random; empty makes one of every combination of values."""

    seed: Annotated[int, Field(ge=0, lt=1 << 32)] = 0
    """Of the draws: the same one gives the same runs."""

    @model_validator(mode="after")
    def _axes_fit(self) -> Self:
        names = [axis.field for axis in self.axes]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"the field {name} varies twice: put all its values into one axis")
        if self.draws is None:
            for axis in self.axes:
                if axis.values is None:
                    raise ValueError(f"{axis.field} has bounds to draw from: say how many runs to draw")
            number = math.prod(len(axis.values or []) for axis in self.axes)
            if number > MAX_RUNS:
                raise ValueError(f"this makes {number:,} runs, the most is {MAX_RUNS}: leave values out, or draw some")
        return self


class PlannedRun(NamedTuple):
    """One run of a sweep; `values` are its own, by the dotted name of the field."""

    values: dict[str, Any]
    request: RunRequest


def expand(sweep: SweepRequest) -> list[PlannedRun]:
    """The runs of a sweep, always the same ones in the same order; the last axis varies fastest.

    Raises:
        InvalidError: some of them are no valid runs, each is named; or there are fewer combinations than `draws`.
    """
    names = [axis.field for axis in sweep.axes]
    combinations = itertools.product(*(axis.values or [] for axis in sweep.axes))
    planned: list[PlannedRun] = []
    problems: list[FieldProblem] = []
    for number, values in enumerate(combinations if sweep.draws is None else _drawn(sweep, sweep.draws)):
        chosen = dict(zip(names, values, strict=True))
        try:
            planned.append(PlannedRun(chosen, _variant(sweep.base, chosen)))
        except ValidationError as error:
            problems += _of_run(number, chosen, field_problems(error.errors()))
    if problems:
        raise InvalidError(problems[0].msg, errors=problems[:_MAX_PROBLEMS])
    return planned


def _of_run(number: int, values: dict[str, Any], found: list[FieldProblem]) -> Iterator[FieldProblem]:
    """Problems of one run of a sweep, which name its values."""
    for problem in found:
        yield FieldProblem(("runs", number, *problem.loc), f"{label(values)}: {problem.msg}", problem.code)


def label(values: dict[str, Any]) -> str:
    """What tells a run from the others of its sweep: `k=64 lr=0.001`."""
    return " ".join(f"{name.rpartition('.')[2]}={_written(value)}" for name, value in values.items())


def _written(value: Any) -> str:
    """As a part of a run's name, not as pages write a value: short, and without spaces or separators of thousands."""
    if isinstance(value, list):
        return ",".join(map(str, value)) or "none"
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "automatic"}[value]
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _variant(base: RunRequest, values: dict[str, Any]) -> RunRequest:
    return with_values(base, values, name=None if base.name is None else _name(base.name, values))


def _name(of_sweep: str, values: dict[str, Any]) -> str:
    """At most 200 characters; what the runs differ in is cut last."""
    suffix = label(values)[:160]
    return f"{of_sweep[: 199 - len(suffix)].rstrip()} {suffix}"


def _drawn(sweep: SweepRequest, wanted: int) -> list[tuple[Any, ...]]:
    source = random.Random(sweep.seed)  # noqa: S311 - nothing secret
    found: dict[str, tuple[Any, ...]] = {}
    for _ in range(wanted * _TRIES):
        values = tuple(_draw(axis, source.random()) for axis in sweep.axes)
        found.setdefault(json.dumps(values), values)
        if len(found) == wanted:
            return list(found.values())
    few = f"only {len(found)} different combinations were found: lower draws to that, or give more values"
    raise InvalidError.field(("draws",), few, "too_few")


def _draw(axis: Axis, position: float) -> Any:
    """The value at `position`, 0 to 1, of an axis; a number is rounded to three digits, as its name shows it."""
    if axis.values is not None:
        return axis.values[int(position * len(axis.values))]
    low, high = axis.low or 0.0, axis.high or 0.0
    if axis.scale == "log":
        drawn = math.exp(math.log(low) + position * (math.log(high) - math.log(low)))
    else:
        drawn = low + position * (high - low)
    if sweepable()[axis.field].kind == "int":
        return round(min(max(drawn, math.ceil(low)), math.floor(high)))
    return min(max(float(f"{drawn:.3g}"), low), high)
