"""Presets that people have saved."""

import time
from typing import Any

from sqlmodel import Field, SQLModel

from server.db.ids import new_id
from server.db.tables.columns import json_column, text_column


class Preset(SQLModel, table=True):
    """A filled-in form under a name."""

    id: str = Field(default_factory=new_id, primary_key=True, max_length=26)
    name: str = Field(max_length=100, unique=True)
    description: str = text_column()
    config: dict[str, Any] = json_column(dict)
    launch: dict[str, Any] = json_column(dict)
    """What a run is asked for with besides its configuration and its name."""
    created_at: float = Field(default_factory=time.time)
