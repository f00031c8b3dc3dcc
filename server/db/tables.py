"""All tables. Rows about metrics and checkpoints are an index of what lies in the run directories and can be rebuilt.

Times are Unix seconds (float, UTC): they sort, subtract and cross SQLite and Postgres without surprises.
"""

import time
from enum import StrEnum
from typing import Any

from sqlalchemy import JSON, BigInteger, Column, Index, MetaData, Text
from sqlmodel import Field, SQLModel

from server.db.ids import new_id

SQLModel.metadata.naming_convention = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
).naming_convention


class RunState(StrEnum):
    """Where a run is. Written by the lease holder, the reaper, or the API when there is no holder."""

    QUEUED = "queued"
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


ACTIVE = (RunState.STARTING, RunState.RUNNING, RunState.STOPPING)
"""States in which a worker holds the run's lease."""

TERMINAL = (RunState.COMPLETED, RunState.FAILED, RunState.CANCELLED)
"""States that nothing leaves."""


class Intent(StrEnum):
    """What the user wants of a run. Written by the API alone."""

    RUN = "run"
    CANCEL = "cancel"


def _json(default: Any) -> Any:
    return Field(default_factory=default, sa_column=Column(JSON, nullable=False))


def _text() -> Any:
    return Field(default="", sa_column=Column(Text, nullable=False, server_default=""))


class Run(SQLModel, table=True):
    """One training run: what was asked for, where it is, and the newest numbers for lists."""

    id: str = Field(default_factory=new_id, primary_key=True, max_length=26)
    name: str = Field(max_length=200, index=True)
    state: str = Field(default=RunState.QUEUED, max_length=16, index=True)
    intent: str = Field(default=Intent.RUN, max_length=16)
    config: dict[str, Any] = _json(dict)
    config_version: int = 1
    num_processes: int = 1
    priority: int = 0
    created_at: float = Field(default_factory=time.time)
    queued_at: float = Field(default_factory=time.time)
    started_at: float | None = None
    finished_at: float | None = None

    fence: int = 0
    """Number of the newest attempt; a holder with a lower one has lost the run."""
    failures: int = 0
    worker_id: str | None = Field(default=None, max_length=26)
    heartbeat: int = 0
    """Counter that the holder raises; the reaper times its standstill on its own clock."""

    reason_code: str = Field(default="", max_length=64)
    message: str = _text()
    log_tail: str = _text()
    """Last lines of the log of a failed run."""

    phase: str = Field(default="", max_length=200)
    step: int = 0
    total_steps: int = 0
    tokens_per_step: int = 0
    coders: list[str] = _json(list)
    latest: dict[str, Any] = _json(dict)
    """Newest value of every series, by key; non-finite ones as strings."""


class Attempt(SQLModel, table=True):
    """One claim of a run by a worker, and how far its event file has been ingested."""

    run_id: str = Field(primary_key=True, foreign_key="run.id", max_length=26)
    attempt: int = Field(primary_key=True)
    worker_id: str = Field(max_length=26)
    host: str = Field(max_length=255)
    devices: list[int] = _json(list)
    """CUDA device indices leased to the attempt; empty on a CPU."""
    supervisor_pid: int = 0
    supervisor_started: float = 0.0
    started_at: float = Field(default_factory=time.time)
    ended_at: float | None = None
    outcome: str = Field(default="", max_length=16)
    resumed_step: int = 0
    event_offset: int = Field(default=0, sa_type=BigInteger)
    """Bytes of the event file whose events are in the database."""
    event_seq: int = 0


class MetricPoint(SQLModel, table=True):
    """One value of one series. SQLite stores NaN as NULL, so `kind` says what a missing value is."""

    __tablename__ = "metric_point"
    __table_args__ = (Index("ix_metric_point_run_id_key_step", "run_id", "key", "step"),)

    run_id: str = Field(primary_key=True, foreign_key="run.id", max_length=26)
    attempt: int = Field(primary_key=True)
    seq: int = Field(primary_key=True)
    key: str = Field(primary_key=True, max_length=400)
    step: int
    ts: float
    value: float | None = None
    kind: str = Field(default="finite", max_length=8)
    """finite, nan, inf or -inf."""


class StepTiming(SQLModel, table=True):
    """Where the time of one measured step went, in milliseconds by part."""

    __tablename__ = "step_timing"
    __table_args__ = (Index("ix_step_timing_run_id_step", "run_id", "step"),)

    run_id: str = Field(primary_key=True, foreign_key="run.id", max_length=26)
    attempt: int = Field(primary_key=True)
    seq: int = Field(primary_key=True)
    step: int
    ts: float
    total_ms: float
    parts_ms: dict[str, float] = _json(dict)
    floor_ms: dict[str, float] | None = Field(default=None, sa_column=Column(JSON(none_as_null=True)))


class Checkpoint(SQLModel, table=True):
    """A published checkpoint; `path` is relative to the run directory."""

    __table_args__ = (Index("uq_checkpoint_run_id_step", "run_id", "step", unique=True),)

    id: str = Field(default_factory=new_id, primary_key=True, max_length=26)
    run_id: str = Field(foreign_key="run.id", max_length=26)
    attempt: int
    step: int
    path: str = Field(max_length=400)
    manifest_sha256: str = Field(max_length=64)
    size_bytes: int = Field(sa_type=BigInteger)
    evaluation: dict[str, Any] = _json(dict)
    created_at: float = Field(default_factory=time.time)


class RunEvent(SQLModel, table=True):
    """Append-only history of a run: who moved it, when, why; warnings too."""

    __tablename__ = "run_event"

    id: int | None = Field(default=None, primary_key=True)
    run_id: str = Field(foreign_key="run.id", max_length=26, index=True)
    ts: float = Field(default_factory=time.time)
    actor: str = Field(max_length=100)
    kind: str = Field(max_length=32)
    detail: str = _text()


class Worker(SQLModel, table=True):
    """A worker process and its devices."""

    id: str = Field(default_factory=new_id, primary_key=True, max_length=26)
    host: str = Field(max_length=255)
    pid: int
    devices: list[dict[str, Any]] = _json(list)
    """One entry per CUDA device {index, name, memory_bytes}; empty on a CPU-only host."""
    cpu_count: int = 1
    started_at: float = Field(default_factory=time.time)
    seen_at: float = Field(default_factory=time.time)
    consumed_at: float | None = None
    """When it last took a message from the broker, or could not be sent one."""


class HubPush(SQLModel, table=True):
    """One upload of a checkpoint to the Hugging Face Hub. The token is never stored."""

    __tablename__ = "hub_push"

    id: str = Field(default_factory=new_id, primary_key=True, max_length=26)
    checkpoint_id: str = Field(max_length=26, index=True)
    """No foreign key: the record of a push outlives a checkpoint that `keep_last` deletes."""
    run_id: str = Field(foreign_key="run.id", max_length=26)
    repo_id: str = Field(max_length=200)
    private: bool = True
    state: str = Field(default="running", max_length=16)
    """running, completed or failed."""
    url: str = Field(default="", max_length=1000)
    message: str = _text()
    pid: int = 0
    created_at: float = Field(default_factory=time.time)
    finished_at: float | None = None


class ApiToken(SQLModel, table=True):
    """A REST token; only its SHA-256 is stored."""

    __tablename__ = "api_token"

    id: str = Field(default_factory=new_id, primary_key=True, max_length=26)
    name: str = Field(max_length=100)
    prefix: str = Field(max_length=16)
    token_sha256: str = Field(max_length=64, unique=True)
    created_at: float = Field(default_factory=time.time)
    last_used_at: float | None = None
    revoked_at: float | None = None


class BrowserSession(SQLModel, table=True):
    """A logged-in browser; only the SHA-256 of its cookie is stored."""

    __tablename__ = "browser_session"

    id: str = Field(primary_key=True, max_length=64)
    csrf_token: str = Field(max_length=64)
    created_at: float = Field(default_factory=time.time)
    seen_at: float = Field(default_factory=time.time)


class LoginCode(SQLModel, table=True):
    """A one-time login code, as printed by `sparseboard up`; only its SHA-256 is stored."""

    __tablename__ = "login_code"

    id: str = Field(primary_key=True, max_length=64)
    expires_at: float


class IdempotencyKey(SQLModel, table=True):
    """An Idempotency-Key of POST /api/v1/runs and what it created."""

    __tablename__ = "idempotency_key"

    key: str = Field(primary_key=True, max_length=200)
    body_sha256: str = Field(max_length=64)
    run_id: str = Field(foreign_key="run.id", max_length=26)
    created_at: float = Field(default_factory=time.time)
