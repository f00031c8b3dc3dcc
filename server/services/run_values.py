"""The value that a run has of any field: what columns of the list and `fields` of the REST API show."""

from collections.abc import Mapping
from typing import Any

from server.db.tables import Run
from server.db.tables.values import METRIC_PREFIX
from server.errors import InvalidError
from server.services.run_fields import RunField, find_field
from server.services.run_query import QueryError

MAX_FIELDS = 40


def parse_fields(names: str) -> list[RunField]:
    """`k,lr,fvu` -> the fields, each once. Raises InvalidError."""
    wanted = list(dict.fromkeys(name.strip() for name in names.split(",") if name.strip()))
    if len(wanted) > MAX_FIELDS:
        raise InvalidError.field(("query", "fields"), f"At most {MAX_FIELDS} fields can be shown.", "fields")
    try:
        return [find_field(name) for name in wanted]
    except QueryError as error:
        raise InvalidError.field(("query", "fields"), str(error), "fields") from None


def value_of(field: RunField, run: Run, means: Mapping[str, float]) -> Any:
    """The value of one field, None when the run has none; `means` are those of its metrics."""
    if field.column is not None:
        return getattr(run, field.column.key)
    if field.kind == "tags":
        return run.tags
    if field.kind == "archived":
        return run.archived_at is not None
    if field.key.startswith(METRIC_PREFIX):
        return means.get(field.key.removeprefix(METRIC_PREFIX))
    return configured(run.config, field.key)


def configured(config: Mapping[str, Any], dotted: str, default: Any = None) -> Any:
    """The value of one field of a nested configuration; the default where it was stored before the field existed."""
    node: Any = config
    for part in dotted.split("."):
        if not isinstance(node, Mapping) or part not in node:
            return default
        node = node[part]
    return node
