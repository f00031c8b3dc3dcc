"""The workers, which of their devices are taken, and whether the queue moves at all."""

import time
from enum import StrEnum
from typing import Any

from sqlalchemy import BigInteger, Index
from sqlmodel import Field, SQLModel

from server.db.ids import new_id
from server.db.tables.columns import ProcessIdentity, json_column, text_column


class WorkerState(StrEnum):
    """Whether a worker takes runs."""

    ACTIVE = "active"
    DRAINING = "draining"


class Worker(SQLModel, table=True):
    """A worker process and its devices."""

    __table_args__ = (Index("uq_worker_name", "name", unique=True),)

    id: str = Field(default_factory=new_id, primary_key=True, max_length=26)
    name: str = Field(max_length=100)
    """What people call it; the host name unless it was given another."""
    host: str = Field(max_length=255)
    pid: int
    boot_id: str = Field(default="", max_length=36)
    pid_namespace: str = Field(default="", max_length=64)
    """Workers of several containers may have the same host name and boot, and do not see each other's processes."""
    protocol: int = 0
    """Which version of tables and messages it speaks (`server.queue.PROTOCOL`); 0: one from before there was any."""
    state: str = Field(default=WorkerState.ACTIVE, max_length=16)
    labels: list[str] = json_column(list)
    devices: list[dict[str, Any]] = json_column(list)
    """One entry per CUDA device: {index, name, memory_bytes, uuid}, and as far as the driver tells them at every
    heartbeat {utilization_frac, used_bytes, num_processes, temperature_c, power_w}. Empty on a CPU-only host.
    """
    cpu_count: int = 1
    cpu_slots: int = 1
    """How many runs it trains on the CPU at a time."""
    started_at: float = Field(default_factory=time.time)
    seen_at: float = Field(default_factory=time.time)
    consumed_at: float | None = None
    """When it last took a message from the broker, or could not be sent one."""


class WorkerSample(SQLModel, table=True):
    """What a worker measured of its machine at a heartbeat. Most live a day; one in five minutes lives a month."""

    __tablename__ = "worker_sample"
    __table_args__ = (Index("ix_worker_sample_keep_until", "keep_until"),)

    worker_id: str = Field(primary_key=True, foreign_key="worker.id", max_length=26)
    ts: float = Field(primary_key=True)
    keep_until: float
    cpu_frac: float
    """Of all cores of the machine, since the heartbeat before."""
    memory_used_bytes: int = Field(sa_type=BigInteger)
    memory_bytes: int = Field(sa_type=BigInteger)
    disk_free_bytes: int = Field(sa_type=BigInteger)
    """Of the disk that holds the data folder."""
    disk_bytes: int = Field(sa_type=BigInteger)
    devices: list[dict[str, Any]] = json_column(list)
    """Like those of the worker, without what never changes."""


class LeaseState(StrEnum):
    """`quarantined`: the run is gone but a process of it could not be killed, so the device stays taken."""

    HELD = "held"
    QUARANTINED = "quarantined"


class DeviceLease(SQLModel, table=True):
    """A device that an attempt has. The key makes a second lease of it impossible, whatever the code does."""

    __tablename__ = "device_lease"
    __table_args__ = (Index("ix_device_lease_run_id_attempt", "run_id", "attempt"),)

    worker_id: str = Field(primary_key=True, max_length=26)
    kind: str = Field(primary_key=True, max_length=8)
    index: int = Field(primary_key=True)
    run_id: str = Field(foreign_key="run.id", max_length=26)
    attempt: int
    node: int = 0
    uuid: str = Field(default="", max_length=100)
    """Of the GPU, as far as its driver tells it: which one is leased even if its worker numbers them anew."""
    state: str = Field(default=LeaseState.HELD, max_length=16)
    reason: str = text_column()
    """Why it is quarantined."""
    processes: list[ProcessIdentity] = json_column(list)
    """What may still use it, when it is quarantined."""
    since: float = Field(default_factory=time.time)


class QueueState(SQLModel, table=True):
    """The one row (id 1) that says whether queued runs start. Its row lock orders all who place or reorder runs."""

    __tablename__ = "queue_state"

    id: int = Field(default=1, primary_key=True)
    paused: bool = False
    reason: str = text_column()
    since: float = Field(default_factory=time.time)
