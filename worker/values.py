"""Metric values as the database keeps them: SQLite stores NaN as NULL."""

import math
from typing import Any


def as_point(value: float) -> dict[str, Any]:
    """Columns `value` and `kind` of a metric point."""
    if math.isfinite(value):
        return {"value": value, "kind": "finite"}
    return {"value": None, "kind": str(value)}
