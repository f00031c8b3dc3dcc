"""What the list of runs filters and sorts by and is no column of a run: one row per value, indexed.

It is a copy: a run's configuration, newest metrics and tags stay what is true, and this follows them. The list must not
take thousands of JSON documents apart for every request.
"""

import unicodedata
from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import Connection, Index, Text, delete, event, insert
from sqlalchemy.orm import Mapper
from sqlmodel import Field, Session, SQLModel, col

from server.db.tables.run import Run
from sparsify_core.metrics import mean_over_coders

METRIC_PREFIX = "metric."
TAGS_KEY = "tags"
_LONGEST = 300
"""Characters of a text that are kept: PostgreSQL's indexes take entries of some 2,700 bytes."""


class RunValue(SQLModel, table=True):
    """One value of a run: of a configuration field by its dotted name, of a metric (`metric.fvu`), or its tags."""

    __tablename__ = "run_value"
    __table_args__ = (
        Index("ix_run_value_key_num_run_id", "key", "num", "run_id"),
        Index("ix_run_value_key_text_run_id", "key", "text", "run_id"),
    )

    run_id: str = Field(primary_key=True, foreign_key="run.id", max_length=26)
    key: str = Field(primary_key=True, max_length=100)
    num: float | None = None
    text: str | None = Field(default=None, sa_type=Text)
    """What is no number, `folded`; lists are joined by spaces."""


Row = dict[str, Any]


def folded(text: str) -> str:
    """Text in which capital and small letters of all scripts are alike; databases know no more than those of ASCII."""
    return unicodedata.normalize("NFC", text.casefold())


def config_rows(run_id: str, config: dict[str, Any], prefix: str = "") -> Iterator[Row]:
    """A row for every value that a stored configuration has."""
    for name, value in config.items():
        if isinstance(value, dict):
            yield from config_rows(run_id, value, f"{prefix}{name}.")
        elif value not in (None, "", []):
            yield {"run_id": run_id, "key": f"{prefix}{name}"} | _cell(value)


def metric_rows(run_id: str, latest: dict[str, Any]) -> list[Row]:
    """A row for every metric of `Run.latest`: its mean over the coders. NaN and infinite ones have none."""
    return [
        {"run_id": run_id, "key": METRIC_PREFIX + name, "num": value, "text": None}
        for name, value in mean_over_coders(latest).items()
        if abs(value) < float("inf")
    ]


def tag_rows(run_id: str, tags: Sequence[str]) -> list[Row]:
    """One row, with a space around every tag."""
    return [{"run_id": run_id, "key": TAGS_KEY, "num": None, "text": folded(f" {' '.join(tags)} ")}] if tags else []


def store_metrics(session: Session, run_id: str, latest: dict[str, Any]) -> None:
    """Bring a run's metrics up to date."""
    _replace(session, run_id, col(RunValue.key).startswith(METRIC_PREFIX), metric_rows(run_id, latest))


def store_tags(session: Session, run_id: str, tags: Sequence[str]) -> None:
    """Bring a run's tags up to date."""
    _replace(session, run_id, col(RunValue.key) == TAGS_KEY, tag_rows(run_id, tags))


def _replace(session: Session, run_id: str, which: Any, rows: list[Row]) -> None:
    outdated = delete(RunValue).where(col(RunValue.run_id) == run_id, which)
    session.execute(outdated, execution_options={"synchronize_session": False})
    if rows:
        session.execute(insert(RunValue), rows)


def _cell(value: Any) -> Row:
    if isinstance(value, bool):
        return {"num": None, "text": "true" if value else "false"}
    if isinstance(value, int | float):
        return {"num": float(value), "text": None}
    text = " ".join(map(str, value)) if isinstance(value, list) else str(value)
    return {"num": None, "text": folded(text)[:_LONGEST]}


@event.listens_for(Run, "before_insert")
@event.listens_for(Run, "before_update")
def _fold(_mapper: Mapper[Run], _connection: Connection, run: Run) -> None:
    run.folded_name, run.folded_notes = folded(run.name), folded(run.notes)


@event.listens_for(Run, "after_insert")
def _store_new(_mapper: Mapper[Run], connection: Connection, run: Run) -> None:
    """However a run comes about, its values come with it."""
    rows = [*config_rows(run.id, run.config), *metric_rows(run.id, run.latest), *tag_rows(run.id, run.tags)]
    if rows:
        connection.execute(insert(RunValue), rows)
