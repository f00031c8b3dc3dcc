"""What a search, a sort and a column can name: columns of a run, fields of its configuration, metrics."""

import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from sqlalchemy import func
from sqlmodel import col

from server.db.tables import Run, RunState
from server.db.tables.values import METRIC_PREFIX, TAGS_KEY
from server.services.run_query import QueryError
from sparsify_core.config import RunConfig, iter_fields
from sparsify_core.metrics import METRICS

Kind = Literal["text", "number", "choice", "flag", "time", "tags", "archived"]
NEWEST_FIRST = "-created"


@dataclass(frozen=True)
class RunField:
    """One field. It is a `column` of the run, or has its values in `RunValue` under `key`.

    Args:
        compared: the column as searches compare it; text is `folded`.
    """

    name: str
    kind: Kind
    label: str
    help: str
    group: str
    column: Any = None
    compared: Any = None
    key: str = ""
    choices: tuple[str, ...] = ()
    unit: str = ""

    @property
    def is_number(self) -> bool:
        """Whether its values are numbers, which stand to the right."""
        return self.kind in ("number", "time")


def find_field(name: str) -> RunField:
    """The field of that name. Raises QueryError, with names that are like it."""
    known = _by_name()
    if name not in known:
        close = difflib.get_close_matches(name, known, n=3)
        hint = f" Did you mean {' or '.join(close)}?" if close else " The page Columns lists all fields."
        raise QueryError(f"There is no field {name}.{hint}")
    return known[name]


def all_fields() -> list[RunField]:
    """Every field once, runs' own first, then the metrics, then the configuration."""
    return list(dict.fromkeys(_by_name().values()))


@cache
def _by_name() -> dict[str, RunField]:
    """A configuration field answers to its flag and its dotted name. Where a metric has the same name (`lr`), the
    metric answers to `metric.lr`.
    """
    named = {field.name: field for field in _own()}
    configured = {field.name: field for field in _configured()}
    metrics = [_metric(name, f"metric.{name}" if name in configured else name) for name in METRICS]
    named |= {field.name: field for field in metrics} | configured
    return named | {field.key: field for field in configured.values()}


def _own() -> Iterator[RunField]:
    def own(name: str, kind: Kind, column: Any, help_: str, compared: Any = None, **more: Any) -> RunField:
        if compared is None:  # ids and reasons are ASCII, which every database knows
            compared = func.lower(column) if kind == "text" else column
        return RunField(name, kind, name.capitalize(), help_, "Run", column, compared, **more)

    yield own("name", "text", col(Run.name), "What people call the run.", compared=col(Run.folded_name))
    yield own("id", "text", col(Run.id), "Its id.")
    yield own("state", "choice", col(Run.state), "Where it is.", choices=tuple(RunState))
    yield own("reason", "text", col(Run.reason_code), "Why it failed, waits or was paused.")
    yield own("tag", "tags", None, "A tag, exactly.", key=TAGS_KEY)
    yield own("notes", "text", col(Run.notes), "What people wrote about it.", compared=col(Run.folded_notes))
    yield own("archived", "archived", None, "yes, no or any; archived runs are hidden otherwise.")
    yield own("sweep", "text", col(Run.sweep_id), "The id of the sweep that it belongs to.")
    yield own("priority", "number", col(Run.priority), "Higher ones start first.")
    yield own("step", "number", col(Run.step), "Optimizer steps taken.", unit="steps")
    yield own("attempt", "number", col(Run.attempt), "Number of the newest attempt.")
    yield own("processes", "number", col(Run.num_processes), "Training processes on each node.")
    yield own("nodes", "number", col(Run.num_nodes), "Hosts that train it together.")
    yield own("created", "time", col(Run.created_at), "When it was made, as 2026-11-30 (UTC).")
    yield own("started", "time", col(Run.started_at), "When it started, as 2026-11-30 (UTC).")
    yield own("finished", "time", col(Run.finished_at), "When it ended, as 2026-11-30 (UTC).")


def _configured() -> Iterator[RunField]:
    kinds: dict[str, Kind] = {"int": "number", "float": "number", "bool": "flag", "choice": "choice"}
    for spec in iter_fields(RunConfig):
        kind = kinds.get(spec.kind, "text")
        yield RunField(
            spec.flag, kind, spec.flag, spec.help, spec.group, key=spec.name, choices=spec.choices, unit=spec.unit
        )


def _metric(name: str, shown: str) -> RunField:
    known = METRICS[name]
    return RunField(
        shown,
        "number",
        known.label,
        f"{known.help} Newest value, mean of the coders.",
        "Metrics",
        key=METRIC_PREFIX + name,
        unit=known.unit,
    )
