"""What a plan answers with. Bytes are of one process, seconds of the whole run."""

from typing import Any, Literal

from server.api.models import Model


class RangeOut(Model):
    """What is expected; in eight of ten runs it lies between `low` and `high`."""

    expected: float
    low: float
    high: float


class NeedOut(Model):
    """A part of the memory; all parts together are what is expected."""

    name: str
    label: str
    num_bytes: float
    help: str


class DurationOut(Model):
    start_s: float
    caching_s: float
    """Writing the activations that `cache_activations` asks for."""
    training_s: float
    evaluation_s: float
    saving_s: float
    total_s: float


class ForecastOut(Model):
    num_parameters: int
    """Of all coders."""
    num_coders: int
    num_steps: int | None
    """null: the dataset's length decides."""
    tokens_per_step: int
    needs: list[NeedOut]
    memory: RangeOut
    """Of the process that needs most."""
    step_s: dict[str, float]
    """Seconds of an optimizer step by part, before any correction by past runs."""
    tokens_per_s: RangeOut
    num_past_runs: int
    """That taught the speed of this device; 0: it is computed alone."""
    duration: DurationOut | None
    duration_s: RangeOut | None
    checkpoint_bytes: int
    disk_bytes: int
    """Of all checkpoints at the moment when there are most."""
    kept_bytes: int
    """Of those that are left at the end."""
    cache_bytes: int


class FixOut(Model):
    label: str
    values: dict[str, Any]
    """New values by field, as in `config.micro_acc_steps`."""


class WarningOut(Model):
    code: str
    severity: Literal["error", "warning", "info"]
    """`error`: the run would fail."""
    message: str
    field: str
    """Which field it is about, as in `config.lr`; empty where it is about none."""
    fixes: list[FixOut]


class PlaceOut(Model):
    position: int
    """In the queue, from 1; 0: it would start at once."""
    waits_for: str
    """Why it would wait, in words."""


class OfferOut(Model):
    """GPUs of one kind of one worker, or its cores."""

    worker: str
    device: str
    num_devices: int
    num_free: int
    memory_bytes: int
    """Of each GPU, or a process's part of the machine's; 0: not known."""
    fits: bool | None
    """Whether the run has room on each of them; null: not known."""


class PlanOut(Model):
    """A run as if it were queued now."""

    planned_for: str
    """The device that numbers are about."""
    offers: list[OfferOut]
    queue: PlaceOut
    command: str
    """What a worker would run on each node; RUN stands for the run's id, HOST for the first node's name."""
    warnings: list[WarningOut]
    forecast: ForecastOut | None
    """null: the model's modules are not known, or the configuration does not fit them; a warning says why."""


class PredictionOut(Model):
    """Numbers by name: `tokens_per_s`, `duration_s`, `memory_bytes` (of one process), `disk_bytes`."""

    device: str
    """What it was predicted for."""
    counted: dict[str, float]
    """By arithmetic alone."""
    expected: dict[str, list[float]]
    """Corrected by past runs: expected, low, high."""
    actual_device: str
    """What it trained on; empty until it has ended."""
    actual: dict[str, float]
