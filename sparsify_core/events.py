"""The event protocol between the trainer and everything that watches it: one JSON line per event, one file per attempt.

Rank 0 is the only writer. A line is appended with a single `os.write`, so a reader sees whole lines or a torn last one,
which it leaves alone. `seq` counts from 1 within an attempt; `(attempt, seq)` identifies an event for ever.
JSON has no NaN: non-finite values travel as the strings "nan", "inf", "-inf".
Unknown types and newer versions must be kept and counted by readers, never crash them.
"""

import json
import math
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, PlainValidator, TypeAdapter, ValidationError

VERSION = 1


def _encode_float(value: float) -> float | str:
    return value if math.isfinite(value) else str(value)


Number = Annotated[float, PlainValidator(float), PlainSerializer(_encode_float)]


class _Event(BaseModel):
    """What every event carries. `ts` is Unix time in seconds; `step` is the optimizer step it belongs to."""

    model_config = ConfigDict(extra="allow", frozen=True)

    v: int = VERSION
    attempt: int = 0
    seq: int = 0
    ts: float = 0.0
    step: int = 0


class AttemptStarted(_Event):
    """First event of a file."""

    type: Literal["attempt_started"] = "attempt_started"
    resumed_step: int = 0
    world_size: int = 1
    device: str = "cpu"
    versions: dict[str, str] = {}


class Phase(_Event):
    """What the trainer does now, in words: `loading model`, `tokenizing`, `caching activations`, `training`,
    `evaluating`, `saving`.
    """

    type: Literal["phase"] = "phase"
    name: str
    detail: str = ""


class TrainingPlanned(_Event):
    """Known once model and data are loaded: what will be trained and for how long."""

    type: Literal["training_planned"] = "training_planned"
    total_steps: int
    tokens_per_step: int
    coders: list[str]
    num_latents: dict[str, int] = {}


class Metrics(_Event):
    """Values of one step, by series key (`sparsify_core.metrics.series_key`)."""

    type: Literal["metrics"] = "metrics"
    values: dict[str, Number]


class StepTimed(_Event):
    """Where the time of one step of rank 0 went, in milliseconds by part (`sparsify_core.parts`), which add up to
    `total_ms`. `floor_ms` is the least that each part takes at the device's peak rates; None where they are unknown.
    """

    type: Literal["step_timed"] = "step_timed"
    total_ms: float
    parts_ms: dict[str, float]
    floor_ms: dict[str, float] | None = None


class CheckpointSaved(_Event):
    """A checkpoint was published; `path` is relative to the run directory."""

    type: Literal["checkpoint_saved"] = "checkpoint_saved"
    path: str
    manifest_sha256: str
    size_bytes: int
    evaluation: dict[str, dict[str, Number]] = {}


class Warned(_Event):
    """Something a person should know that does not stop the run."""

    type: Literal["warning"] = "warning"
    message: str


class AttemptFinished(_Event):
    """Last event of a file that ended in an orderly way."""

    type: Literal["attempt_finished"] = "attempt_finished"
    outcome: Literal["completed", "stopped", "failed"]
    reason_code: str = ""
    message: str = ""
    peak_memory_bytes: int = 0
    """The most that the first process has held at once: of the GPU's memory as PyTorch counts it, on a CPU of the
    machine's. 0: not known."""


class UnknownEvent(_Event):
    """An event of a newer protocol, kept as it came."""

    type: str


Event = AttemptStarted | Phase | TrainingPlanned | Metrics | StepTimed | CheckpointSaved | Warned | AttemptFinished
_KNOWN: TypeAdapter[Event] = TypeAdapter(Annotated[Event, Field(discriminator="type")])


def parse(line: bytes) -> Event | UnknownEvent:
    """Parse one line. Raises ValueError when it is not a JSON object with a `type`."""
    data = json.loads(line)
    if not isinstance(data, dict) or not isinstance(data.get("type"), str):
        raise ValueError(f"an event must be an object with a type, got {line[:80]!r}")
    try:
        return _KNOWN.validate_python(data)
    except ValidationError:
        return UnknownEvent.model_validate(data)


def read_events(path: Path, offset: int = 0, limit_bytes: int = 4 << 20) -> Iterator[tuple[Event | UnknownEvent, int]]:
    """Yield `(event, offset behind it)` for every whole line after byte `offset`, at most about `limit_bytes`.

    A torn last line is not yielded; a line that is not JSON is skipped (its bytes are part of the next offset).
    Yields nothing when the file does not exist yet.
    """
    try:
        with path.open("rb") as file:
            file.seek(offset)
            block = file.read(limit_bytes)
    except (FileNotFoundError, NotADirectoryError):
        return
    for line in block.splitlines(keepends=True):
        if not line.endswith(b"\n"):
            return
        offset += len(line)
        try:
            yield parse(line), offset
        except ValueError:
            continue


class EventWriter:
    """Appends events to one attempt's file. Used by rank 0 only.

    Raises FileExistsError when the attempt's file is already there: an attempt is never written twice.
    """

    def __init__(self, path: Path, *, attempt: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o644)
        self._attempt = attempt
        self._seq = 0

    def write(self, event: Event) -> None:
        """Stamp and append one event. Checkpoints and the end of the attempt are flushed to the disk."""
        self._seq += 1
        stamped = event.model_copy(update={"attempt": self._attempt, "seq": self._seq, "ts": time.time()})
        record: dict[str, Any] = stamped.model_dump(mode="json")
        os.write(self._fd, json.dumps(record, separators=(",", ":"), allow_nan=False).encode() + b"\n")
        if isinstance(event, CheckpointSaved | AttemptFinished):
            os.fsync(self._fd)

    def close(self) -> None:
        os.close(self._fd)
