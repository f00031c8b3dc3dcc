"""Create and find runs; `run_list` lists them, `control` has what is asked of those that are there."""

from typing import Any

from sqlmodel import Session, col, select

from server import queue
from server.db.runs import record
from server.db.session import after_commit
from server.db.tables import Run, RunEvent, RunState
from server.db.workers import resources_of, worker_views
from server.scheduling import GB, never_satisfiable
from server.services.forecasts import predict
from server.services.lookup import get_row
from server.services.names import random_name
from server.services.refusals import refuse
from server.services.requests import RunRequest
from server.settings import Settings
from sparsify_core.config.run import CONFIG_VERSION


def create_run(
    session: Session, request: RunRequest, *, settings: Settings, actor: str, detail: str = "", **values: Any
) -> Run:
    """Queue a run; the workers are woken once it is committed.

    Args:
        detail: where it comes from, for its history.
        values: further columns of its row.

    Raises:
        InvalidError: the model or the dataset may not be used, or is not there, or the trainer would refuse it.
    """
    refuse(request, settings)
    run = new_run(request, **values)
    enqueue(session, run, settings=settings, actor=actor, detail=detail)
    return run


def new_run(request: RunRequest, **values: Any) -> Run:
    """The row of a run that was asked for, not yet in the database."""
    return Run(
        name=request.name or random_name(),
        config=request.config.model_dump(mode="json"),
        config_version=CONFIG_VERSION,
        num_processes=request.num_processes,
        num_nodes=request.num_nodes,
        min_memory_bytes=None if request.min_memory_gb is None else round(request.min_memory_gb * GB),
        labels=sorted(set(request.labels)),
        **values,
    )


def enqueue(session: Session, *new: Run, settings: Settings, actor: str, detail: str = "") -> None:
    """Add new rows to the queue; the workers are woken once they are committed. Each says if it can never start."""
    workers = worker_views(session)
    for run in new:
        never = never_satisfiable(resources_of(run), workers)
        run.waits_for = f"cannot start yet: {never}" if never else ""
        session.add(run)
        session.flush()
        record(session, run.id, actor=actor, kind=RunState.QUEUED, detail=detail)
        if never:
            record(session, run.id, actor="server", kind="warning", detail=run.waits_for)
    predict(session, new, settings=settings)
    ids = [run.id for run in new]
    after_commit(session, lambda: queue.announce(settings.redis_url, *ids, wake=True))


def get_run(session: Session, run_id: str) -> Run:
    """Raises NotFoundError."""
    return get_row(session, Run, run_id, "run")


def successor_of(session: Session, run_id: str) -> Run | None:
    """The run that goes on where a failed or cancelled one ended."""
    return session.exec(select(Run).where(Run.retry_of == run_id)).first()


def history(session: Session, run_id: str) -> list[RunEvent]:
    """Who did what to a run, oldest first."""
    return list(session.exec(select(RunEvent).where(RunEvent.run_id == run_id).order_by(col(RunEvent.id))))
