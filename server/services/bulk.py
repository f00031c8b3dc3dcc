"""The same asked of many runs at once: every one answers for itself."""

from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import NamedTuple

from sqlmodel import Session

from server.db import runs as machine
from server.db.tables import TERMINAL, Run
from server.errors import ConflictError, InvalidError
from server.services import annotations, control
from server.services.annotations import Tag
from server.services.run_list import count_runs, matching_ids
from server.services.runs import get_run
from server.settings import Settings

MAX_RUNS = 1000


class BulkAction(StrEnum):
    """What can be asked of many runs."""

    CANCEL = "cancel"
    PAUSE = "pause"
    RESUME = "resume"
    ARCHIVE = "archive"
    RESTORE = "restore"
    TAG = "tag"
    UNTAG = "untag"


class Outcome(NamedTuple):
    """What became of it for one run; `detail` says why nothing did."""

    run: Run
    is_done: bool
    detail: str = ""


def chosen_runs(session: Session, q: str, state: str | None = None) -> list[str]:
    """The runs that match a search, to do something to. Raises InvalidError when they are more than `MAX_RUNS`."""
    count = count_runs(session, q, state)
    if count > MAX_RUNS:
        raise InvalidError.field(
            ("q",), f"{count:,} runs match, {MAX_RUNS:,} can be changed at once: narrow the search."
        )
    return matching_ids(session, q, state, limit=MAX_RUNS)


def act_on_many(
    session: Session, run_ids: Sequence[str], action: BulkAction, *, tag: Tag = "", settings: Settings, actor: str
) -> list[Outcome]:
    """Ask it of every run; one that cannot answers why. Raises NotFoundError, and then nothing has been done."""
    machine.lock_queue(session)  # a scheduling pass writes many rows in another order
    runs = [get_run(session, run_id) for run_id in dict.fromkeys(run_ids)]
    ask = _request(session, action, tag, settings, actor)
    # In one order everywhere, so that two requests at once never wait for each other's rows.
    outcomes = {run.id: _outcome(ask, run) for run in sorted(runs, key=lambda run: run.id)}
    return [outcomes[run.id] for run in runs]


def _request(session: Session, action: BulkAction, tag: Tag, settings: Settings, actor: str) -> Callable[[str], Run]:
    match action:
        case BulkAction.CANCEL:
            return lambda run_id: _cancel(session, run_id, settings, actor)
        case BulkAction.PAUSE:
            return lambda run_id: control.pause_run(session, run_id, settings=settings, actor=actor)
        case BulkAction.RESUME:
            return lambda run_id: control.resume_run(session, run_id, settings=settings, actor=actor)
        case BulkAction.TAG:
            return lambda run_id: annotations.add_tag(session, run_id, tag)
        case BulkAction.UNTAG:
            return lambda run_id: annotations.remove_tag(session, run_id, tag)
        case _:
            archived = action == BulkAction.ARCHIVE
            return lambda run_id: annotations.archive_run(session, run_id, archived=archived, actor=actor)


def _cancel(session: Session, run_id: str, settings: Settings, actor: str) -> Run:
    """Alone it is harmless to cancel a run that is over; among many it is worth a word."""
    run = get_run(session, run_id)
    if run.state in TERMINAL:
        raise ConflictError(f"The run {run.name} is {run.state} already.", code="wrong_state")
    return control.cancel_run(session, run_id, settings=settings, actor=actor)


def _outcome(ask: Callable[[str], Run], run: Run) -> Outcome:
    try:
        return Outcome(ask(run.id), is_done=True)
    except ConflictError as error:
        return Outcome(run, is_done=False, detail=error.detail)
