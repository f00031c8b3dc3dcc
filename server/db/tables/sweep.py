"""Sweeps: runs that were asked for together."""

import time
from typing import Any

from sqlmodel import Field, SQLModel

from server.db.ids import new_id
from server.db.tables.columns import json_column


class Sweep(SQLModel, table=True):
    """Many runs that differ in a few fields; theirs is `Run.sweep_id`."""

    id: str = Field(default_factory=new_id, primary_key=True, max_length=26)
    name: str = Field(max_length=200)
    spec: dict[str, Any] = json_column(dict)
    """What was asked for (server.services.sweep_spec.SweepRequest)."""
    created_at: float = Field(default_factory=time.time)
