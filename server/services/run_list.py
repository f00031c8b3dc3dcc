"""The list of runs: filtered by a query, in any order, page by page.

Pages go on behind a value and an id, never behind a number of rows: a run that appears moves nobody to another page.
"""

import base64
import binascii
import json
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import Select, and_, bindparam, func, tuple_
from sqlmodel import Session, col, select

from server.db.tables import Run, RunState, RunValue
from server.errors import InvalidError
from server.services.run_fields import NEWEST_FIRST, RunField, find_field
from server.services.run_filter import conditions
from server.services.run_query import QueryError

_BY_IDS = select(Run).where(col(Run.id).in_(bindparam("run_ids", expanding=True)))
MAX_QUERY = 1000
"""Characters of a search, and of a list of fields."""


class Page(NamedTuple):
    """One page of a list; `next_cursor` is None on the last one."""

    items: list[Run]
    next_cursor: str | None


class Order(NamedTuple):
    """By which field a list is sorted. Runs without a value always come last."""

    field: RunField
    descending: bool

    @property
    def name(self) -> str:
        return f"-{self.field.name}" if self.descending else self.field.name


class _Place(NamedTuple):
    """Where a run stands in an order."""

    value: Any
    run_id: str


def list_runs(
    session: Session,
    *,
    q: str = "",
    state: str | None = None,
    sort: str = NEWEST_FIRST,
    limit: int = 50,
    cursor: str | None = None,
) -> Page:
    """The runs that match `q`, sorted by a field; a `-` before it turns the order round.

    Raises InvalidError: the query, the field or the cursor cannot be understood.
    """
    order = _order(sort)
    after = _decode(cursor, order) if cursor else None
    wanted = select(Run.id).where(*_wanted(q, state))
    found: list[_Place] = []
    if after is None or after.value is not None:
        found = _with_value(session, wanted, order, after, limit + 1)
    if len(found) <= limit:
        behind = after.run_id if after is not None and after.value is None else None
        found += _without_value(session, wanted, order, behind, limit + 1 - len(found))
    next_cursor = _encode(order, found[limit - 1]) if len(found) > limit else None
    return Page(_load(session, [place.run_id for place in found[:limit]]), next_cursor)


def count_runs(session: Session, q: str = "", state: str | None = None) -> int:
    """How many runs match. Raises InvalidError."""
    return session.exec(select(func.count()).select_from(Run).where(*_wanted(q, state))).one()


def matching_ids(session: Session, q: str = "", state: str | None = None, *, limit: int) -> list[str]:
    """The ids of the runs that match, the newest first. Raises InvalidError."""
    matching = select(Run.id).where(*_wanted(q, state)).order_by(col(Run.created_at).desc(), col(Run.id).desc())
    return list(session.exec(matching.limit(limit)))


def parse_sort(sort: str) -> Order:
    """Raises QueryError."""
    field = find_field(sort.removeprefix("-"))
    if field.column is None and not field.key:
        raise QueryError(f"Runs cannot be sorted by {field.name}.")
    return Order(field, sort.startswith("-"))


def _wanted(q: str, state: str | None) -> Sequence[Any]:
    try:
        wanted = conditions(q)
    except QueryError as error:
        raise InvalidError.field(("query", "q"), str(error), "query") from None
    return [*wanted, col(Run.state) == RunState(state)] if state else wanted


def _order(sort: str) -> Order:
    try:
        return parse_sort(sort)
    except QueryError as error:
        raise InvalidError.field(("query", "sort"), str(error), "sort") from None


def _with_value(session: Session, wanted: Any, order: Order, after: _Place | None, limit: int) -> list[_Place]:
    """Runs that have a value, behind `after`; the index of values gives them in this order."""
    statement, value, run_id = _sorted_by(wanted, order.field)
    statement = statement.add_columns(value).where(value.is_not(None))
    if after is not None:
        here = tuple_(value, run_id)
        statement = statement.where(here < tuple(after) if order.descending else here > tuple(after))
    ways = [column.desc() if order.descending else column.asc() for column in (value, run_id)]
    rows = session.execute(statement.order_by(*ways).limit(limit))
    return [_Place(value, run_id) for run_id, value in rows]


def _without_value(session: Session, wanted: Any, order: Order, after_id: str | None, limit: int) -> list[_Place]:
    """Runs that have none, in the order of their ids."""
    statement, value, _ = _sorted_by(wanted, order.field, outer=True)
    statement = statement.where(value.is_(None))
    run_id = col(Run.id)
    if after_id is not None:
        statement = statement.where(run_id < after_id if order.descending else run_id > after_id)
    way = run_id.desc() if order.descending else run_id.asc()
    return [_Place(None, each) for each in session.execute(statement.order_by(way).limit(limit)).scalars()]


def _sorted_by(wanted: Any, field: RunField, *, outer: bool = False) -> tuple[Select[Any], Any, Any]:
    """The statement with the field in it, and its columns of the value and the run's id."""
    if field.column is not None:
        return wanted, field.column, col(Run.id)
    mine = and_(col(RunValue.run_id) == col(Run.id), col(RunValue.key) == field.key)
    value = col(RunValue.num) if field.is_number else col(RunValue.text)
    return wanted.join(RunValue, mine, isouter=outer), value, col(RunValue.run_id)


def _load(session: Session, run_ids: list[str]) -> list[Run]:
    """These runs, in this order. Sorting whole rows, with their JSON, would be many times slower."""
    runs = {run.id: run for run in session.exec(_BY_IDS, params={"run_ids": run_ids})}
    return [runs[run_id] for run_id in run_ids if run_id in runs]


def _encode(order: Order, place: _Place) -> str:
    return base64.urlsafe_b64encode(json.dumps([order.name, *place]).encode()).decode().rstrip("=")


def _decode(cursor: str, order: Order) -> _Place:
    try:
        name, value, run_id = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        if name == order.name and _fits(order.field, value) and _is_id(run_id):
            return _Place(value, run_id)
    except (ValueError, binascii.Error, TypeError, OverflowError, RecursionError):
        pass
    raise InvalidError.field(("query", "cursor"), "This is not a cursor that this list of runs gave out.", "cursor")


def _is_id(run_id: Any) -> bool:
    return isinstance(run_id, str) and len(run_id) == 26 and run_id.isalnum()


def _fits(field: RunField, value: Any) -> bool:
    """Whether a field can have this value. Raises ValueError for text that is no Unicode."""
    if value is None:
        return True
    if field.is_number:
        if isinstance(value, int):
            return abs(value) < 1 << 63  # what a database takes
        return isinstance(value, float) and math.isfinite(value)
    return isinstance(value, str) and b"\x00" not in value.encode()
