"""Points as rows of the database. SQLite stores NaN as NULL, so a row says besides what a missing value is."""

import math
from collections.abc import Mapping, Sequence

from sqlmodel import Session

from server.db.series.buckets import Point

_INSERT = "INSERT INTO metric_point (run_id, key, step, attempt, seq, ts, value, kind) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"


def stored(value: float) -> tuple[float | None, str]:
    """A row's value and kind."""
    return (value, "finite") if math.isfinite(value) else (None, str(value))


def number(value: float | None, kind: str) -> float:
    """What `stored` was given."""
    return float(kind) if value is None else value


def add_points(session: Session, run_id: str, points: Mapping[str, Sequence[Point]]) -> None:
    """Write points of a run's series, by key, as rows."""
    rows = [
        (run_id, key, step, attempt, seq, ts, *stored(value))
        for key, of_key in points.items()
        for step, attempt, seq, ts, value in of_key
    ]
    if not rows:
        return
    # Straight to the driver: SQLAlchemy takes longer to prepare these rows than the database to store them.
    connection = session.connection()
    statement = _INSERT if connection.dialect.name == "sqlite" else _INSERT.replace("?", "%s")
    connection.exec_driver_sql(statement, rows)
