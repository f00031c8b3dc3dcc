"""What the REST API answers with. Times are Unix seconds (UTC)."""

import math
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from server.db.tables import Intent, Run, RunState, WorkerState
from server.diagnosis import Severity, State
from server.scheduling import DeviceKind


class Model(BaseModel):
    """Read from rows by attribute; what is not named here never leaves the server."""

    model_config = ConfigDict(from_attributes=True, use_attribute_docstrings=True)


Value = Annotated[float | str, Field(description="A number; non-finite ones as `nan`, `inf` or `-inf`.")]


class FieldError(BaseModel):
    loc: list[str | int]
    msg: str
    code: str


class ProblemDetail(BaseModel):
    """RFC 9457 problem details."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    code: str
    errors: list[FieldError]
    request_id: str


class RunOut(Model):
    """A run: what was asked for, where it is, and its newest numbers."""

    id: str
    name: str
    state: RunState
    intent: Intent
    config: dict[str, Any]
    config_version: int
    num_processes: int
    num_nodes: int
    min_memory_bytes: int | None
    labels: list[str]
    priority: int
    rank: float
    """Order inside a priority, lower first."""
    created_at: float
    queued_at: float
    not_before: float | None
    """When the backoff of a run in `retry_wait` ends."""
    started_at: float | None
    finished_at: float | None
    retry_of: str | None
    """The run that this one continues from its newest checkpoint."""
    cloned_from: str | None
    forked_from: str | None
    """The run whose checkpoint, that of `forked_step`, it starts from."""
    forked_step: int | None
    sweep_id: str | None
    """The sweep that it belongs to."""
    attempt: int
    failures: int
    losses: int
    reason_code: str
    """Why a run failed, waits to be tried again, or was paused; stable and machine-readable."""
    message: str
    tags: list[str]
    notes: str
    """Markdown."""
    archived_at: float | None
    """When it was put away; lists hide it."""
    waits_for: str
    """Why a queued run has not started."""
    phase: str
    step: int
    total_steps: int
    tokens_per_step: int
    coders: list[str]
    latest: dict[str, Value]


class RunList(BaseModel):
    items: list[RunOut]
    next_cursor: str | None


class RunRow(BaseModel):
    """The fields of a run that were asked for."""

    id: str
    values: dict[str, Any]


class RunTable(BaseModel):
    items: list[RunRow]
    next_cursor: str | None


def as_json(value: Any) -> Any:
    """A value that JSON can hold: a NaN or infinite number as its name."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


class StateOut(Model):
    """Where a run is after a request: `stopping` while a worker saves and ends it, else the state that it came to."""

    id: str
    state: RunState
    intent: Intent


class StateList(BaseModel):
    items: list[StateOut]


class OutcomeOut(BaseModel):
    """What became of a request for one run among many."""

    id: str
    name: str
    state: RunState
    is_done: bool
    detail: str
    """Why it was not done."""

    @classmethod
    def of(cls, run: Run, is_done: bool, detail: str) -> "OutcomeOut":
        return cls(id=run.id, name=run.name, state=RunState(run.state), is_done=is_done, detail=detail)


class OutcomeList(BaseModel):
    items: list[OutcomeOut]


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


class EventOut(Model):
    id: int
    ts: float
    actor: str
    kind: str
    """The state that the run moved to, or what else happened."""
    from_state: str
    reason_code: str
    detail: str


class EventList(BaseModel):
    items: list[EventOut]


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


class SearchOut(Model):
    attempt: int
    hits: list[HitOut]
    is_complete: bool
    """Whether these are all: there may be more matches than were asked for, or too much to read."""


class CheckpointOut(Model):
    id: str
    run_id: str
    attempt: int
    step: int
    manifest_sha256: str
    size_bytes: int
    evaluation: dict[str, dict[str, Value]]
    created_at: float


class CheckpointList(BaseModel):
    items: list[CheckpointOut]


class FileOut(Model):
    path: str
    size_bytes: int
    sha256: str


class CheckpointDetail(CheckpointOut):
    coders: list[str]
    files: list[FileOut]


class TokenActivation(BaseModel):
    text: str
    activation: float | None
    is_peak: bool


class SnippetOut(BaseModel):
    """A firing of a latent with the text around it."""

    activation: float
    tokens: list[TokenActivation]


class LatentOut(BaseModel):
    """One latent on the held-out text."""

    coder: str
    latent: int
    firing_frac: float
    max_activation: Value
    decoder_norm: Value
    snippets: list[SnippetOut]


class PushOut(Model):
    id: str
    checkpoint_id: str
    run_id: str
    repo_id: str
    private: bool
    state: str
    """running, completed or failed."""
    url: str
    message: str
    created_at: float
    finished_at: float | None


class PushList(BaseModel):
    items: list[PushOut]


class DeviceOut(BaseModel):
    index: int
    name: str
    memory_bytes: int
    utilization_frac: float | None = None
    """Of the last second or so; null where the driver does not tell."""
    used_bytes: int | None = None
    num_processes: int | None = None
    temperature_c: float | None = None
    power_w: float | None = None


class DeviceSample(BaseModel):
    index: int
    utilization_frac: float | None = None
    used_bytes: int | None = None
    num_processes: int | None = None
    temperature_c: float | None = None
    power_w: float | None = None


class SampleOut(Model):
    """What a worker measured of its machine."""

    ts: float
    cpu_frac: float
    """Of all cores, since the sample before."""
    memory_used_bytes: int
    memory_bytes: int
    disk_free_bytes: int
    """Of the disk that holds the data folder."""
    disk_bytes: int
    devices: list[DeviceSample]


class SampleList(BaseModel):
    items: list[SampleOut]


class WorkerOut(Model):
    id: str
    name: str
    host: str
    state: WorkerState
    """`draining`: it takes no runs."""
    labels: list[str]
    devices: list[DeviceOut]
    cpu_count: int
    cpu_slots: int
    started_at: float
    seen_at: float


class QuarantineOut(Model):
    """A device that is kept from all runs, because a process on it may not have ended."""

    worker_id: str
    kind: DeviceKind
    index: int
    run_id: str
    """The run that had it last."""
    reason: str
    since: float


class QuarantineList(BaseModel):
    items: list[QuarantineOut]


class WorkerList(BaseModel):
    items: list[WorkerOut]


class ViewOut(Model):
    """A kept view of the list of runs."""

    id: str
    name: str
    query: str
    """Query string of the page /runs."""
    created_at: float


class ViewList(BaseModel):
    items: list[ViewOut]


class QueueOut(Model):
    paused: bool
    reason: str
    """Why it is paused, for people."""
    since: float
    """When it was paused or resumed last; 0 when never."""


class TokenOut(Model):
    id: str
    name: str
    prefix: str
    created_at: float
    last_used_at: float | None
    revoked_at: float | None


class TokenList(BaseModel):
    items: list[TokenOut]


class NewTokenOut(TokenOut):
    token: str
    """The secret: shown this once."""


class ConfigField(Model):
    """One field of a run's configuration."""

    name: str
    kind: str
    default: Any
    help: str
    group: str
    unit: str
    basic: bool
    nullable: bool
    choices: list[str]
    minimum: float | None
    maximum: float | None
    visible_if: dict[str, str]
    """On which values of other fields it has an effect: name -> alternatives by `|`, `*` in front of an ending, `!` in
    front for none of them."""


class ConfigFields(BaseModel):
    version: int
    items: list[ConfigField]
