"""Create, find and list runs; `control` has what is asked of those that are there."""

import base64
import binascii
import json
import math
import time
from typing import Any, NamedTuple

from sqlalchemy import func, or_, tuple_
from sqlmodel import Session, col, select

from server import queue
from server.db.runs import record
from server.db.session import after_commit
from server.db.tables import Run, RunEvent, RunState, Worker
from server.errors import InvalidError, NotFoundError
from server.services.names import random_name
from server.services.requests import RunRequest
from server.services.sources import source_problems
from server.services.workers import ALIVE_S
from server.settings import Settings
from sparsify_core.config.run import CONFIG_VERSION


class Page(NamedTuple):
    """One page of a list; `next_cursor` is None on the last one."""

    items: list[Run]
    next_cursor: str | None


def create_run(
    session: Session, request: RunRequest, *, settings: Settings, actor: str, detail: str = "", **values: Any
) -> Run:
    """Queue a run; the workers are woken once it is committed.

    Args:
        detail: where it comes from, for its history.
        values: further columns of its row.

    Raises:
        InvalidError: the model or the dataset may not be used, or is not there.
    """
    problems = source_problems(request.config, settings)
    if problems:
        raise InvalidError(problems[0].msg, errors=problems)
    run = Run(
        name=request.name or random_name(),
        config=request.config.model_dump(mode="json"),
        config_version=CONFIG_VERSION,
        num_processes=request.num_processes,
        **values,
    )
    enqueue(session, run, settings=settings, actor=actor, detail=detail)
    return run


def enqueue(session: Session, run: Run, *, settings: Settings, actor: str, detail: str = "") -> None:
    """Add a new row to the queue; the workers are woken once it is committed."""
    session.add(run)
    session.flush()
    record(session, run.id, actor=actor, kind=RunState.QUEUED, detail=detail)
    note = _never_satisfiable(session, run)
    if note:
        record(session, run.id, actor="server", kind="warning", detail=note)
    after_commit(session, lambda: queue.announce(settings.redis_url, run.id, wake=True))


def get_run(session: Session, run_id: str) -> Run:
    """Raises NotFoundError."""
    run = session.get(Run, run_id) if len(run_id) <= 26 and run_id.isalnum() else None
    if run is None:
        raise NotFoundError("There is no such run.")
    return run


def successor_of(session: Session, run_id: str) -> Run | None:
    """The run that goes on where a failed or cancelled one ended."""
    return session.exec(select(Run).where(Run.retry_of == run_id)).first()


def list_runs(
    session: Session, *, limit: int = 50, cursor: str | None = None, state: str | None = None, q: str | None = None
) -> Page:
    """Runs, newest first; `q` is looked for in name, id, model and dataset."""
    statement = select(Run).order_by(col(Run.created_at).desc(), col(Run.id).desc()).limit(limit + 1)
    if cursor:
        statement = statement.where(tuple_(col(Run.created_at), col(Run.id)) < _decode(cursor))
    if state:
        statement = statement.where(Run.state == state)
    if q and "\x00" in q:  # PostgreSQL has no such text
        return Page([], None)
    if q:
        fields = (
            col(Run.name),
            col(Run.id),
            col(Run.config)["model"].as_string(),
            col(Run.config)["dataset"].as_string(),
        )
        statement = statement.where(or_(*(func.lower(f).contains(q.lower(), autoescape=True) for f in fields)))
    rows = list(session.exec(statement))
    more = len(rows) > limit
    return Page(rows[:limit], _encode(rows[limit - 1]) if more else None)


def history(session: Session, run_id: str) -> list[RunEvent]:
    """Who did what to a run, oldest first."""
    return list(session.exec(select(RunEvent).where(RunEvent.run_id == run_id).order_by(col(RunEvent.id))))


def _never_satisfiable(session: Session, run: Run) -> str | None:
    """A sentence when no connected worker could ever start the run. A host without GPUs takes any number."""
    alive = session.exec(select(Worker).where(Worker.seen_at > time.time() - ALIVE_S)).all()
    most = max((len(w.devices) if w.devices else w.cpu_count for w in alive), default=run.num_processes)
    if most >= run.num_processes:
        return None
    return f"wants {run.num_processes} processes, no connected worker has more than {most}: it waits for a larger one"


def _encode(run: Run) -> str:
    return base64.urlsafe_b64encode(json.dumps([run.created_at, run.id]).encode()).decode().rstrip("=")


def _decode(cursor: str) -> tuple[float, str]:
    try:
        created_at, run_id = json.loads(base64.urlsafe_b64decode(cursor[:200] + "=" * (-len(cursor) % 4)))
        if (
            isinstance(created_at, float)
            and math.isfinite(created_at)
            and isinstance(run_id, str)
            and len(run_id) == 26
        ):
            return created_at, run_id
    except (ValueError, binascii.Error, TypeError):
        pass
    raise InvalidError.field(("query", "cursor"), "This is not a cursor that a list of runs gave out.", "cursor")
