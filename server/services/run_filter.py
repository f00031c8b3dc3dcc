"""Queries of the search box as conditions of SQL."""

import re
import time
from calendar import timegm
from collections.abc import Callable, Sequence
from operator import eq, ge, gt, le, lt
from typing import Any

from sqlalchemy import ColumnElement, and_, false, func, not_, or_, true
from sqlmodel import col, select

from server.db.tables import Run, RunValue
from server.db.tables.values import TAGS_KEY, folded
from server.services.amounts import amount
from server.services.run_fields import RunField, find_field
from server.services.run_query import Comparison, QueryError, Term, Word, parse

_COMPARE: dict[str, Callable[[Any, Any], ColumnElement[bool]]] = {
    ":": eq,
    "=": eq,
    ">": gt,
    ">=": ge,
    "<": lt,
    "<=": le,
}
_DAY_S = 86_400
_YES_NO = {"yes": True, "true": True, "no": False, "false": False}
_SEARCHED_KEYS = ("model", "dataset", TAGS_KEY)


def conditions(query: str) -> list[ColumnElement[bool]]:
    """What a run must fulfil to match the query. Archived runs do not, unless it says so. Raises QueryError."""
    terms = parse(query)
    found = [_condition(term) for term in terms]
    if not any(isinstance(term, Comparison) and term.field == "archived" for term in terms):
        found.append(col(Run.archived_at).is_(None))
    return found


def _condition(term: Term) -> ColumnElement[bool]:
    if isinstance(term, Word):
        return _negate(_anywhere(term.text), term.negated)
    field = find_field(term.field)
    if term.operator not in (":", "=") and field.kind not in ("number", "time"):
        raise QueryError(f"{field.name} has no order: write {field.name}:{term.values[0]}")
    return _negate(or_(*(_holds(field, term.operator, value) for value in term.values)), term.negated)


def _negate(condition: ColumnElement[bool], negated: bool) -> ColumnElement[bool]:
    """A comparison with a missing value is unknown, which counts as not fulfilled."""
    return not_(func.coalesce(condition, false())) if negated else condition


def _anywhere(text: str) -> ColumnElement[bool]:
    own = [_contains(find_field(name).compared, text) for name in ("name", "id", "notes")]
    return or_(*own, _has_value(_SEARCHED_KEYS, _contains(col(RunValue.text), text)))


def _holds(field: RunField, operator: str, value: str) -> ColumnElement[bool]:
    match field.kind:
        case "tags":
            return _has_value([field.key], _contains(col(RunValue.text), f" {value} "))
        case "archived":
            return _archived(value)
        case "time":
            return _at_time(field, operator, value)
        case "number":
            compare, number = _COMPARE[operator], _number(field, value)
            return _of(field, col(RunValue.num), lambda column: compare(column, number))
        case _:
            wanted = _wanted_text(field, value)
            is_exact = operator == "=" or field.kind != "text"
            return _of(field, col(RunValue.text), lambda column: (_equals if is_exact else _contains)(column, wanted))


def _of(field: RunField, stored: Any, holds: Callable[[Any], ColumnElement[bool]]) -> ColumnElement[bool]:
    return holds(field.compared) if field.column is not None else _has_value([field.key], holds(stored))


def _has_value(keys: Sequence[str], holds: ColumnElement[bool]) -> ColumnElement[bool]:
    return col(Run.id).in_(select(RunValue.run_id).where(col(RunValue.key).in_(keys), holds))


def _contains(column: Any, text: str) -> ColumnElement[bool]:
    """Of a column that is folded."""
    escaped = re.sub(r"([/%_])", r"/\1", folded(text))
    return column.like(f"%{escaped}%", escape="/")  # type: ignore[no-any-return]


def _equals(column: Any, text: str) -> ColumnElement[bool]:
    return column == folded(text)  # type: ignore[no-any-return]


def _archived(value: str) -> ColumnElement[bool]:
    if value == "any":
        return true()
    if value not in _YES_NO:
        raise QueryError(f"archived is yes, no or any, not {value}.")
    return col(Run.archived_at).is_not(None) if _YES_NO[value] else col(Run.archived_at).is_(None)


def _wanted_text(field: RunField, value: str) -> str:
    if field.kind == "flag":
        if value not in _YES_NO:
            raise QueryError(f"{field.name} is yes or no, not {value}.")
        return str(_YES_NO[value]).lower()
    if field.choices and value not in field.choices:
        raise QueryError(f"{field.name} is {_one_of(field.choices)}, not {value}.")
    return value


def _one_of(choices: Sequence[str]) -> str:
    return f"{', '.join(choices[:-1])} or {choices[-1]}"


def _number(field: RunField, value: str) -> float:
    number = amount(value)
    if number is None:
        raise QueryError(f"{field.name} is a number, as in {field.name}>32 or {field.name}<20M, not {value}.")
    return number


def _at_time(field: RunField, operator: str, value: str) -> ColumnElement[bool]:
    """A day in UTC: behind it begins at its end."""
    try:
        start = timegm(time.strptime(value, "%Y-%m-%d"))
    except ValueError:
        raise QueryError(f"{field.name} is a day, as in {field.name}>2026-11-30, not {value}.") from None
    end = start + _DAY_S
    column = field.column
    match operator:
        case ">":
            return column >= end  # type: ignore[no-any-return]
        case ">=":
            return column >= start  # type: ignore[no-any-return]
        case "<":
            return column < start  # type: ignore[no-any-return]
        case "<=":
            return column < end  # type: ignore[no-any-return]
        case _:
            return and_(column >= start, column < end)
