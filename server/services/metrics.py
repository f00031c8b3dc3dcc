"""Series of a run as charts want them, read from the database."""

from collections.abc import Sequence
from typing import Any, TypedDict

from sqlalchemy import case, func
from sqlalchemy import select as core_select
from sqlmodel import Session, col, select

from server.db.tables import Attempt, MetricPoint
from sparsify_core.metrics import split_key

MAX_POINTS = 2000
SPARK_POINTS = 48


class Series(TypedDict):
    """One series, ordered by step; non-finite values are the strings `nan`, `inf` and `-inf`."""

    steps: list[int]
    values: list[float | str]
    ts: list[float]


def series(
    session: Session, run_id: str, keys: Sequence[str] | None = None, *, max_points: int = MAX_POINTS
) -> dict[str, Series]:
    """Every series of a run, or those of `keys`; of a longer one every 2^n-th point and the last."""
    order = func.row_number().over(
        partition_by=col(MetricPoint.key), order_by=(col(MetricPoint.step), col(MetricPoint.attempt))
    )
    total = func.count().over(partition_by=col(MetricPoint.key))
    columns = (MetricPoint.key, MetricPoint.step, MetricPoint.ts, MetricPoint.value, MetricPoint.kind)
    numbered = core_select(*(col(c) for c in columns), (order - 1).label("place"), total.label("total"))
    numbered = numbered.where(col(MetricPoint.run_id) == run_id)
    if keys is not None:
        storable = [key for key in keys if "\x00" not in key]  # PostgreSQL has no such text
        numbered = numbered.where(col(MetricPoint.key).in_(storable))
    table = numbered.subquery()
    is_last = table.c.place == table.c.total - 1
    thinned = core_select(table).where((table.c.place % _stride(table.c.total, max_points) == 0) | is_last)
    found: dict[str, Series] = {}
    for row in session.execute(thinned.order_by(table.c.key, table.c.place)):
        one = found.setdefault(row.key, {"steps": [], "values": [], "ts": []})
        one["steps"].append(row.step)
        one["values"].append(row.value if row.kind == "finite" else row.kind)
        one["ts"].append(row.ts)
    return found


def spark(session: Session, run_id: str) -> list[float | None]:
    """A few training FVUs of the run's first coder, for a sparkline."""
    first = select(func.min(MetricPoint.key)).where(
        MetricPoint.run_id == run_id, col(MetricPoint.key).startswith("fvu")
    )
    key = session.exec(first).one()
    if key is None or split_key(key)[0] != "fvu":
        return []
    values = series(session, run_id, [key], max_points=SPARK_POINTS)[key]["values"]
    return [value if isinstance(value, float) else None for value in values]


def cursor(session: Session, run_id: str) -> str:
    """Where the run's event stream stands, as `attempt.seq`: it goes on behind that. Read it before the series."""
    attempt, seq = position(session, run_id)
    return f"{attempt}.{seq}"


def position(session: Session, run_id: str) -> tuple[int, int]:
    """The newest event of the run that is in the database, as (attempt, seq); (0, 0) before the first."""
    statement = (
        select(Attempt.attempt, Attempt.event_seq)
        .where(Attempt.run_id == run_id, Attempt.event_seq > 0)
        .order_by(col(Attempt.attempt).desc())
        .limit(1)
    )
    newest = session.exec(statement).first()
    return (newest[0], newest[1]) if newest else (0, 0)


def _stride(total: Any, max_points: int) -> Any:
    """The smallest power of two that thins `total` points to at most `max_points`: growth keeps the points chosen."""
    return case(*((total <= max_points << n, 1 << n) for n in range(16)), else_=1 << 16)
