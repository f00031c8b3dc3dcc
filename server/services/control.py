"""What people do to runs that are there: cancel, pause, resume, requeue, retry, clone, reorder.

Each may be asked twice, answers with the state that the run is in, and raises ConflictError, which names that state,
where it cannot be done.
"""

from collections.abc import Callable, Sequence
from typing import Any

from sqlmodel import Session, col, select

from server import queue
from server.db import runs as machine
from server.db.session import after_commit
from server.db.tables import TERMINAL, WAITING, Intent, Run, RunState
from server.errors import ConflictError, FieldProblem, NotFoundError
from server.services.requests import RunRequest, launch_values
from server.services.runs import create_run, enqueue, get_run, successor_of
from server.settings import Settings
from sparsify_core.config import RunConfig

_COPIED = (
    *("name", "config", "config_version"),
    *("num_processes", "num_nodes", "min_memory_bytes", "labels", "priority"),
)
"""What the successor of a failed or cancelled run takes over."""


def cancel_run(session: Session, run_id: str, *, settings: Settings, actor: str) -> Run:
    """End a run; one that is over stays as it is. Raises NotFoundError."""
    return _ask(session, run_id, machine.request_cancel, settings=settings, actor=actor)


def cancel_runs(session: Session, run_ids: Sequence[str] | None, *, settings: Settings, actor: str) -> list[Run]:
    """End these runs, or with None all that are not over. Raises NotFoundError, and then ends none of them."""
    machine.lock_queue(session)  # a scheduling pass writes many rows in another order
    if run_ids is None:
        unfinished = select(Run.id).where(col(Run.state).not_in(TERMINAL)).order_by(col(Run.id))
        run_ids = list(session.exec(unfinished))
    for run_id in run_ids:
        get_run(session, run_id)
    # In one order everywhere, so that two requests at once never wait for each other's rows.
    ended = {run_id: cancel_run(session, run_id, settings=settings, actor=actor) for run_id in sorted(set(run_ids))}
    return [ended[run_id] for run_id in dict.fromkeys(run_ids)]


def pause_run(session: Session, run_id: str, *, settings: Settings, actor: str) -> Run:
    """Have a run save, give its devices back and wait. Raises NotFoundError; ConflictError when it is over."""
    run = _ask(session, run_id, machine.request_pause, settings=settings, actor=actor)
    if run.state != RunState.PAUSED and run.intent != Intent.PAUSE:
        raise _conflict(run, "there is nothing to pause")
    return run


def resume_run(session: Session, run_id: str, *, settings: Settings, actor: str) -> Run:
    """Queue a paused run again. Raises NotFoundError; ConflictError when it is over or being cancelled."""
    run = _ask(session, run_id, machine.resume, settings=settings, actor=actor, wake=True)
    if run.intent != Intent.RUN or run.state in TERMINAL:
        raise _conflict(run, "only a run that is not over can be resumed: retry a failed or cancelled one")
    return run


def requeue_run(session: Session, run_id: str, *, settings: Settings, actor: str) -> Run:
    """Have a run save, give its devices back and queue behind the others; end a backoff.

    Raises NotFoundError; ConflictError when it is over, paused or being cancelled.
    """
    run = _ask(session, run_id, machine.requeue, settings=settings, actor=actor, wake=True)
    if run.state not in (RunState.QUEUED, RunState.STOPPING) or run.intent != Intent.RUN:
        raise _conflict(run, "only a run that trains or is in retry wait can be queued anew")
    return run


def retry_run(session: Session, run_id: str, *, settings: Settings, actor: str) -> Run:
    """Queue the successor of a failed or cancelled run, which goes on from its newest intact checkpoint.

    Returns the successor, the same one however often it is asked for. Raises NotFoundError; ConflictError when the
    run neither failed nor was cancelled.
    """
    get_run(session, run_id)
    machine.snapshot(session, run_id)  # locks the row: of two requests at once the second finds the successor
    successor = successor_of(session, run_id)
    if successor is not None:
        return successor
    run = _fresh(session, run_id)
    if run.state not in (RunState.FAILED, RunState.CANCELLED):
        raise _conflict(run, "only a failed or cancelled run can be tried again")
    successor = Run(**{name: getattr(run, name) for name in _COPIED}, retry_of=run.id)
    enqueue(session, successor, settings=settings, actor=actor, detail=f"goes on where {run.id} ended")
    machine.record(session, run.id, actor=actor, kind="retried", detail=f"goes on as {successor.id}")
    return successor


def clone_run(session: Session, run_id: str, *, settings: Settings, actor: str) -> Run:
    """Queue a run with the same configuration, which starts from the beginning.

    Raises NotFoundError; InvalidError when the model or the dataset may not be used any more.
    """
    run = get_run(session, run_id)
    asked = launch_values(run) | {"name": f"{run.name[:193]} (copy)"}
    request = RunRequest(**asked, config=RunConfig.model_validate(run.config))
    values = {"priority": run.priority, "cloned_from": run.id}
    return create_run(session, request, settings=settings, actor=actor, detail=f"a copy of {run.id}", **values)


def move_beside(session: Session, run_id: str, other_id: str, *, ahead: bool, settings: Settings, actor: str) -> Run:
    """Put a run directly ahead of another one in the queue, or behind it.

    Raises NotFoundError; ConflictError when one of them has no place there.
    """
    for each in (run_id, other_id):
        _waiting(session, each)
    machine.move_beside(session, run_id, other_id, ahead=ahead, actor=actor)
    return _moved(session, run_id, settings)


def move_to_end(session: Session, run_id: str, *, first: bool, settings: Settings, actor: str) -> Run:
    """Put a run before all others in the queue, or behind them.

    Raises NotFoundError; ConflictError when it has no place there.
    """
    _waiting(session, run_id)
    machine.move_to_end(session, run_id, first=first, actor=actor)
    return _moved(session, run_id, settings)


def set_priority(session: Session, run_id: str, priority: int, *, settings: Settings, actor: str) -> Run:
    """Higher ones start first. Raises NotFoundError; ConflictError when the run is over."""
    run = get_run(session, run_id)
    if run.state in TERMINAL:
        raise _conflict(run, "its priority matters no more")
    machine.set_priority(session, run_id, priority, actor=actor)
    return _moved(session, run_id, settings)


def _ask(
    session: Session,
    run_id: str,
    request: Callable[..., RunState | None],
    *,
    settings: Settings,
    actor: str,
    wake: bool = False,
) -> Run:
    get_run(session, run_id)
    if request(session, run_id, actor=actor) is None:
        raise NotFoundError("There is no such run.")
    after_commit(session, lambda: queue.announce(settings.redis_url, run_id, wake=wake))
    return _fresh(session, run_id)


def _fresh(session: Session, run_id: str) -> Run:
    """The row as it is now: moves go past the objects that the session has read."""
    run = get_run(session, run_id)
    session.refresh(run)
    return run


def _waiting(session: Session, run_id: str) -> None:
    run = get_run(session, run_id)
    if run.state not in WAITING:
        raise _conflict(run, "only runs that wait have a place in the queue")


def _moved(session: Session, run_id: str, settings: Settings) -> Run:
    after_commit(session, lambda: queue.announce(settings.redis_url, run_id, wake=True))
    return _fresh(session, run_id)


def _conflict(run: Run, why: str) -> ConflictError:
    state: Any = RunState(run.state)
    words = f"The run {run.name} is {state.replace('_', ' ')}: {why}."
    return ConflictError(words, code="wrong_state", errors=[FieldProblem(("state",), f"is {state}", str(state))])
