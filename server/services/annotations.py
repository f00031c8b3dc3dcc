"""What people write on runs to find them again: a name, tags, notes in Markdown; and putting them away."""

import time
from collections.abc import Sequence
from typing import Annotated

from pydantic import AfterValidator, Field, StringConstraints
from sqlmodel import Session

from server.db import runs as machine
from server.db.tables import TERMINAL, Run
from server.db.tables.values import store_tags
from server.errors import ConflictError, FieldProblem
from server.services.changes import Change, etag_of, require_current
from server.services.lookup import get_row
from server.services.requests import visible
from server.services.runs import get_run

MAX_TAGS = 16


def _printable(text: str) -> str:
    if "\x00" in text:
        raise ValueError("the notes hold an invisible character: remove it")
    return text.replace("\r\n", "\n").strip()


def _named(name: str | None) -> str | None:
    shown = visible(name)
    if name is not None and shown is None:
        raise ValueError("a run needs a name")
    return shown


Tag = Annotated[str, StringConstraints(pattern=r"^\w[\w./+-]{0,31}$", to_lower=True, strip_whitespace=True)]
"""Letters, digits and `_ . / + -`; in small letters, so that nobody has to remember which."""


class RunChange(Change):
    """What can be changed about a run; what is left out stays."""

    priority: Annotated[int | None, Field(ge=-1000, le=1000)] = None
    """Higher ones start first."""
    name: Annotated[str | None, Field(max_length=200), AfterValidator(_named)] = None
    tags: Annotated[list[Tag] | None, Field(max_length=MAX_TAGS)] = None
    """All of them: those that it has and that are not listed are taken off."""
    notes: Annotated[str | None, Field(max_length=20_000), AfterValidator(lambda text: text and _printable(text))] = (
        None
    )
    """Markdown. Send the run's `ETag` as `If-Match`, so that nobody's words are overwritten unseen."""
    archived: bool | None = None
    """Whether lists hide it; only a run that is over can be put away."""


def etag(run: Run) -> str:
    """Names what people have written on a run: it stays the same while the run trains."""
    return etag_of([run.name, run.tags, run.notes, run.archived_at])


def annotate(session: Session, run_id: str, change: RunChange, *, actor: str, if_match: str | None = None) -> Run:
    """Change name, tags, notes and archive.

    Raises:
        NotFoundError: there is no such run.
        NotCurrentError: `if_match` is not the run's `etag` any more.
        ConflictError: a run that is not over cannot be archived.
    """
    run = get_row(session, Run, run_id, "run", locks=True)
    require_current(if_match, etag(run), "run")
    if change.name is not None and change.name != run.name:
        machine.record(session, run.id, actor=actor, kind="renamed", detail=f"was {run.name}")
        run.name = change.name
    if change.notes is not None:
        run.notes = change.notes
    if change.tags is not None:
        _set_tags(session, run, change.tags)
    if change.archived is not None:
        _set_archived(session, run, change.archived, actor=actor)
    session.add(run)
    return run


def add_tag(session: Session, run_id: str, tag: str) -> Run:
    """Give a run a tag more. Raises NotFoundError; ConflictError when it has `MAX_TAGS`."""
    run = get_run(session, run_id)
    if tag not in run.tags and len(run.tags) >= MAX_TAGS:
        raise ConflictError(f"The run {run.name} has {MAX_TAGS} tags already.", code="too_many_tags")
    _set_tags(session, run, [*run.tags, tag])
    return run


def remove_tag(session: Session, run_id: str, tag: str) -> Run:
    """Take a tag off a run. Raises NotFoundError."""
    run = get_run(session, run_id)
    _set_tags(session, run, [each for each in run.tags if each != tag])
    return run


def archive_run(session: Session, run_id: str, *, archived: bool, actor: str) -> Run:
    """Put a run away, or back. Raises NotFoundError; ConflictError when it is not over."""
    run = get_run(session, run_id)
    _set_archived(session, run, archived, actor=actor)
    return run


def _set_tags(session: Session, run: Run, tags: Sequence[str]) -> None:
    run.tags = sorted(set(tags))
    session.add(run)
    store_tags(session, run.id, run.tags)


def _set_archived(session: Session, run: Run, archived: bool, *, actor: str) -> None:
    if archived == (run.archived_at is not None):
        return
    if archived and run.state not in TERMINAL:
        state = run.state.replace("_", " ")
        words = f"The run {run.name} is {state}: only a run that is over can be archived."
        raise ConflictError(words, code="wrong_state", errors=[FieldProblem(("state",), f"is {state}", run.state)])
    run.archived_at = time.time() if archived else None
    session.add(run)
    machine.record(session, run.id, actor=actor, kind="archived" if archived else "restored")
