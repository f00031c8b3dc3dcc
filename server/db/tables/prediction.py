"""What a run was predicted to need, and what it needed."""

import time

from sqlalchemy import Index
from sqlmodel import Field, SQLModel

from server.db.tables.columns import json_column


class Prediction(SQLModel, table=True):
    """Of one run. The corrections of later predictions are made of these rows, and stored nowhere else.

    Numbers go by name: `tokens_per_s`, `duration_s`, `memory_bytes` (of one process), `disk_bytes`.
    """

    __table_args__ = (Index("ix_prediction_device_created_at", "device", "created_at"),)

    run_id: str = Field(primary_key=True, foreign_key="run.id", max_length=26)
    created_at: float = Field(default_factory=time.time)
    device: str = Field(max_length=300)
    """What it was predicted for: the name of a GPU, or `cpu of HOST`."""
    family: str = Field(max_length=64)
    """Runs that are alike: a hash of model and loss."""
    counted: dict[str, float] = json_column(dict)
    """By arithmetic alone."""
    expected: dict[str, list[float]] = json_column(dict)
    """Corrected, as it was shown: expected, low, high."""
    actual_device: str = Field(default="", max_length=300)
    """What it trained on; empty until it has ended."""
    actual: dict[str, float] = json_column(dict)
