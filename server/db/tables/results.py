"""What runs produce: rows about metrics and checkpoints index what lies in the run directories and can be rebuilt."""

import time
from typing import Any

from sqlalchemy import JSON, BigInteger, Column, Index
from sqlmodel import Field, SQLModel

from server.db.ids import new_id
from server.db.tables.columns import json_column, text_column


class MetricPoint(SQLModel, table=True):
    """One value of one series. SQLite stores NaN as NULL, so `kind` says what a missing value is.

    The primary key is the order in which charts read, and SQLite keeps the rows themselves in it.
    """

    __tablename__ = "metric_point"
    __table_args__ = (
        Index("ix_metric_point_run_id_attempt_seq", "run_id", "attempt", "seq"),
        {"sqlite_with_rowid": False},
    )

    run_id: str = Field(primary_key=True, foreign_key="run.id", max_length=26)
    key: str = Field(primary_key=True, max_length=400)
    step: int = Field(primary_key=True)
    attempt: int = Field(primary_key=True)
    seq: int = Field(primary_key=True)
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
    parts_ms: dict[str, float] = json_column(dict)
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
    evaluation: dict[str, Any] = json_column(dict)
    created_at: float = Field(default_factory=time.time)


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
    message: str = text_column()
    pid: int = 0
    created_at: float = Field(default_factory=time.time)
    finished_at: float | None = None
