"""Metric values as the database keeps them: SQLite stores NaN as NULL, and JSON has no NaN."""

import math
from typing import Any


def as_point(value: float) -> dict[str, Any]:
    """Columns `value` and `kind` of a metric point."""
    if math.isfinite(value):
        return {"value": value, "kind": "finite"}
    return {"value": None, "kind": str(value)}


def as_json(value: float) -> float | str:
    """The value itself, or `nan`, `inf`, `-inf`."""
    return value if math.isfinite(value) else str(value)
