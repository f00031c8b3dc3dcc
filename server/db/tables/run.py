"""A run, its attempts, and the history of both."""

import time
from typing import Any

from sqlalchemy import JSON, BigInteger, Column, Index
from sqlmodel import Field, SQLModel

from server.db.ids import new_id
from server.db.states import Intent, RunState
from server.db.tables.columns import ProcessIdentity, json_column, text_column


class Run(SQLModel, table=True):
    """One training run: what was asked for, where it is, and the newest numbers for lists."""

    __table_args__ = (
        Index("uq_run_retry_of", "retry_of", unique=True),
        Index("ix_run_archived_at_created_at_id", "archived_at", "created_at", "id"),
    )

    id: str = Field(default_factory=new_id, primary_key=True, max_length=26)
    name: str = Field(max_length=200, index=True)
    state: str = Field(default=RunState.QUEUED, max_length=16, index=True)
    intent: str = Field(default=Intent.RUN, max_length=16)
    config: dict[str, Any] = json_column(dict)
    config_version: int = 1

    num_processes: int = 1
    """Training processes on every node: one per GPU, or 1 on a CPU."""
    num_nodes: int = 1
    """Hosts that train the run together."""
    min_memory_bytes: int | None = Field(default=None, sa_type=BigInteger)
    """What every GPU must have; None takes any."""
    labels: list[str] = json_column(list)
    """What a worker must be labelled with, all of them."""

    priority: int = 0
    """Higher ones start first."""
    rank: float = Field(default_factory=time.time)
    """Order inside a priority, lower first: the time at which it was queued, until somebody moves the run."""
    waits_for: str = text_column()
    """Why a queued run has not started, for people."""
    created_at: float = Field(default_factory=time.time)
    queued_at: float = Field(default_factory=time.time)
    not_before: float | None = None
    """When the backoff of a run in `retry_wait` ends."""
    started_at: float | None = None
    finished_at: float | None = None

    fence: int = 0
    """Whoever holds the run passes it with every write; raised by a claim and by the reaper."""
    attempt: int = 0
    """Number of the newest attempt: the fence with which it was claimed."""
    failures: int = 0
    """Attempts that training itself ended, out of the budget of their failure class."""
    losses: int = 0
    """Attempts that machines ended (a lost worker, a killed process), out of a budget of their own."""

    retry_of: str | None = Field(default=None, max_length=26)
    """The failed or cancelled run that this one continues from its newest checkpoint; a run has one successor."""
    cloned_from: str | None = Field(default=None, max_length=26, index=True)
    """The run whose configuration was copied."""
    forked_from: str | None = Field(default=None, max_length=26, index=True)
    """The run whose checkpoint, that of `forked_step`, it starts from."""
    forked_step: int | None = None
    sweep_id: str | None = Field(default=None, max_length=26, index=True)
    """The sweep that it belongs to."""

    tags: list[str] = json_column(list)
    """Short words that people gave it, to find it by."""
    notes: str = text_column()
    """What people wrote about it, in Markdown."""
    folded_name: str = text_column()
    folded_notes: str = text_column()
    """Name and notes as searches compare them: `server.db.tables.values.folded`."""
    archived_at: float | None = None
    """When it was put away: lists hide it from then on."""

    reason_code: str = Field(default="", max_length=64)
    """Why it failed, is in retry wait, or was paused by something else than a person."""
    message: str = text_column()
    log_tail: str = text_column()
    """Last lines of the log of a failed run."""

    phase: str = Field(default="", max_length=200)
    """What the trainer does now."""
    step: int = 0
    total_steps: int = 0
    tokens_per_step: int = 0
    coders: list[str] = json_column(list)
    latest: dict[str, Any] = json_column(dict)
    """Newest value of every series, by key; non-finite ones as strings."""
    spark: dict[str, list[Any]] = Field(
        default_factory=lambda: {"steps": [], "values": []},
        sa_column=Column(JSON, nullable=False, server_default='{"steps": [], "values": []}'),
    )
    """Course of the first coder's training FVU, as `server.db.series.sparkline` draws it on."""


class Attempt(SQLModel, table=True):
    """One claim of a run, and how far its event file has been ingested."""

    run_id: str = Field(primary_key=True, foreign_key="run.id", max_length=26)
    attempt: int = Field(primary_key=True)
    started_at: float = Field(default_factory=time.time)
    ended_at: float | None = None
    outcome: str = Field(default="", max_length=16)
    reason_code: str = Field(default="", max_length=64)
    """What ended it, unless it was complete or asked to stop."""
    resumed_step: int = 0
    """Step of the checkpoint that it went on from; 0 from the beginning."""
    rendezvous: str = Field(default="", max_length=300)
    """`host:port` where the nodes meet, once the leader has said so; empty with one node."""
    event_offset: int = Field(default=0, sa_type=BigInteger)
    """Bytes of the event file whose events are in the database."""
    event_seq: int = 0


class AttemptNode(SQLModel, table=True):
    """One host's part of an attempt. Node 0 leads: it writes events and checkpoints and releases the run."""

    __tablename__ = "attempt_node"

    run_id: str = Field(primary_key=True, foreign_key="run.id", max_length=26)
    attempt: int = Field(primary_key=True)
    node: int = Field(primary_key=True, default=0)
    worker_id: str = Field(max_length=26, index=True)
    host: str = Field(max_length=255)
    boot_id: str = Field(default="", max_length=36)
    """Names the host's boot: a process of another one is gone."""
    pid_namespace: str = Field(default="", max_length=64)
    """Where `supervisor_pid` counts: to a worker of another namespace it says nothing."""
    devices: list[int] = json_column(list)
    """CUDA device indices leased to the node; empty on a CPU."""
    supervisor_pid: int = 0
    supervisor_started: float = 0.0
    processes: list[ProcessIdentity] = json_column(list)
    """What trains: torchrun and all that it has started."""
    heartbeat: int = 0
    """Counter that the node's supervisor raises; the reaper times its standstill on its own clock."""
    ended_at: float | None = None
    exit_code: int | None = None
    reason_code: str = Field(default="", max_length=64)
    """Why training could not be started here."""
    message: str = text_column()


class RunEvent(SQLModel, table=True):
    """Append-only history of a run: who moved it, when, why; warnings too."""

    __tablename__ = "run_event"

    id: int | None = Field(default=None, primary_key=True)
    run_id: str = Field(foreign_key="run.id", max_length=26, index=True)
    ts: float = Field(default_factory=time.time)
    actor: str = Field(max_length=100)
    kind: str = Field(max_length=32)
    """The state that it moved to, or what else happened: `warning`, `watch`, `health`, `moved`, `retried`."""
    from_state: str = Field(default="", max_length=16)
    """The state that it moved from; empty when the event is no move."""
    reason_code: str = Field(default="", max_length=64)
    detail: str = text_column()
