"""Answers about what a run reports: series, timings, its health, its log."""

from typing import Any

from pydantic import BaseModel

from server.api.models.base import Model, Value
from server.diagnosis import Severity, State


class SeriesOut(Model):
    """One series in buckets of `width` steps, ordered by step and aligned to step 0."""

    steps: list[int]
    """Of the last point in each bucket, like `values` and `ts`."""
    values: list[Value]
    ts: list[float]
    min: list[float | None] | None
    """The smallest finite value in each bucket; null when `width` is 1, and these are the points themselves."""
    max: list[float | None] | None
    width: int
    """A power of two."""


class MetricsOut(BaseModel):
    """Series by key (`fvu/layers.5`), and where the event stream goes on behind them."""

    cursor: str
    series: dict[str, SeriesOut]


class OverlayOut(BaseModel):
    """Series by run and key, all in buckets of one width."""

    series: dict[str, dict[str, SeriesOut]]


class TimingOut(Model):
    """Where the time of one optimizer step of the first process went."""

    attempt: int
    step: int
    ts: float
    total_ms: float
    parts_ms: dict[str, float]
    """Milliseconds by part, which add up to `total_ms`."""
    floor_ms: dict[str, float] | None
    """The least that each part takes at the device's peak rates; null where they are unknown."""


class TimingList(BaseModel):
    items: list[TimingOut]


class FindingOut(Model):
    """Something that is wrong with a run's training."""

    code: str
    severity: Severity
    title: str
    cause: str
    fix: dict[str, Any]
    """Fields of the configuration by dotted name, with the values that a clone should have; null leaves one empty."""


class CheckOut(Model):
    code: str
    label: str
    state: State
    """`waiting`: the run has no values to look at yet."""
    finding: FindingOut | None


class HealthOut(BaseModel):
    """How well a run trains."""

    checks: list[CheckOut]


class LogOut(Model):
    """A piece of an attempt's log; read on at `next_offset`."""

    attempt: int
    offset: int
    next_offset: int
    text: str


class HitOut(Model):
    """A line of a log that matches; read the log from `offset` to see what is around it."""

    line: int
    offset: int
    text: str
    rank: int | None
    """The process that wrote it, where the line says so."""


class SearchOut(Model):
    attempt: int
    hits: list[HitOut]
    is_complete: bool
    """Whether these are all: there may be more matches than were asked for, or too much to read."""
