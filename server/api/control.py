"""`/api/v1/runs`: what can be asked of runs that are there. Every request may be repeated."""

import hashlib
from typing import Annotated, Literal, Self

from fastapi import APIRouter, Depends, Response
from pydantic import BaseModel, ConfigDict, Field, model_validator
from sqlmodel import Session

from server.api.dependencies import Body, DatabaseDep, IfMatch, SettingsDep, SingleQuery, body_schema, json_body
from server.api.models import OutcomeList, OutcomeOut, RunOut, StateList, StateOut
from server.api.runs import IdempotencyKey, answer_once
from server.auth import CurrentUser
from server.db.ids import ID_PATTERN
from server.db.tables import Run
from server.services import annotations, bulk, control
from server.services.annotations import RunChange, Tag
from server.services.bulk import MAX_RUNS, BulkAction
from server.services.run_list import MAX_QUERY

router = APIRouter(prefix="/runs", tags=["runs"], dependencies=[SingleQuery])

RunId = Annotated[str, Field(pattern=ID_PATTERN)]


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class CancelRequest(_Request):
    """Which runs to cancel: those with `ids`, or `all` that are not over."""

    ids: Annotated[list[RunId], Field(max_length=1000)] = []
    all: bool = False

    @model_validator(mode="after")
    def _one(self) -> Self:
        if bool(self.ids) == self.all:
            raise ValueError("give either ids or all=true")
        return self


class MoveRequest(_Request):
    """Where in the queue a run shall be: exactly one of the three."""

    ahead_of: RunId | None = None
    """Directly before this run, with its priority."""
    behind_of: RunId | None = None
    """Directly behind this run, with its priority."""
    to: Literal["first", "last"] | None = None
    """Before or behind all that wait."""

    @model_validator(mode="after")
    def _one(self) -> Self:
        if sum(value is not None for value in (self.ahead_of, self.behind_of, self.to)) != 1:
            raise ValueError("give exactly one of ahead_of, behind_of and to")
        return self


class BulkRequest(_Request):
    """What to ask of many runs: of those with `ids`, or of all that match the search `q`."""

    action: BulkAction
    ids: Annotated[list[RunId], Field(max_length=MAX_RUNS)] = []
    q: Annotated[str | None, Field(max_length=MAX_QUERY)] = None
    tag: Tag | None = None
    """For the actions tag and untag."""

    @model_validator(mode="after")
    def _one(self) -> Self:
        if bool(self.ids) == (self.q is not None):
            raise ValueError("give either ids or q")
        if (self.tag is not None) != (self.action in (BulkAction.TAG, BulkAction.UNTAG)):
            raise ValueError("give a tag with the actions tag and untag, and with no other")
        return self


CancelBody = Annotated[Body[CancelRequest], Depends(json_body(CancelRequest))]
MoveBody = Annotated[Body[MoveRequest], Depends(json_body(MoveRequest))]
BulkBody = Annotated[Body[BulkRequest], Depends(json_body(BulkRequest))]
ChangeBody = Annotated[Body[RunChange], Depends(json_body(RunChange))]


@router.post("/cancel", openapi_extra=body_schema(CancelRequest))
def cancel_runs(body: CancelBody, user: CurrentUser, database: DatabaseDep, settings: SettingsDep) -> StateList:
    """End these runs, or all. A run that is over stays as it is; an unknown id ends none of them."""
    ids = None if body.value.all else body.value.ids
    with database.write() as session:
        ended = control.cancel_runs(session, ids, settings=settings, actor=user.name)
    return StateList(items=[StateOut.model_validate(run) for run in ended])


@router.post("/bulk", openapi_extra=body_schema(BulkRequest))
def act_on_many(body: BulkBody, user: CurrentUser, database: DatabaseDep, settings: SettingsDep) -> OutcomeList:
    """Ask the same of many runs. Each answers for itself whether it was done; an unknown id leaves all as they are."""
    asked = body.value
    with database.write() as session:
        ids = asked.ids if asked.q is None else bulk.chosen_runs(session, asked.q)
        by = user.name
        outcomes = bulk.act_on_many(session, ids, asked.action, tag=asked.tag or "", settings=settings, actor=by)
    return OutcomeList(items=[OutcomeOut.of(*each) for each in outcomes])


@router.post("/{run_id}/cancel")
def cancel_run(run_id: str, user: CurrentUser, database: DatabaseDep, settings: SettingsDep) -> StateOut:
    """End a run. One that is over stays as it is."""
    with database.write() as session:
        return StateOut.model_validate(control.cancel_run(session, run_id, settings=settings, actor=user.name))


@router.post("/{run_id}/pause")
def pause_run(run_id: str, user: CurrentUser, database: DatabaseDep, settings: SettingsDep) -> StateOut:
    """Have a run save a checkpoint, give its devices back, and wait for `resume`."""
    with database.write() as session:
        return StateOut.model_validate(control.pause_run(session, run_id, settings=settings, actor=user.name))


@router.post("/{run_id}/resume")
def resume_run(run_id: str, user: CurrentUser, database: DatabaseDep, settings: SettingsDep) -> StateOut:
    """Queue a paused run again, in the place that it had. It goes on from its newest intact checkpoint."""
    with database.write() as session:
        return StateOut.model_validate(control.resume_run(session, run_id, settings=settings, actor=user.name))


@router.post("/{run_id}/requeue")
def requeue_run(run_id: str, user: CurrentUser, database: DatabaseDep, settings: SettingsDep) -> StateOut:
    """Have a run save, give its devices back and queue behind the others; or end its wait between two tries."""
    with database.write() as session:
        return StateOut.model_validate(control.requeue_run(session, run_id, settings=settings, actor=user.name))


@router.post("/{run_id}/retry", status_code=201)
def retry_run(
    run_id: str, response: Response, user: CurrentUser, database: DatabaseDep, settings: SettingsDep
) -> RunOut:
    """Queue a run that goes on where this failed or cancelled one saved last. Repeated, it answers with the same."""
    with database.write() as session:
        run = control.retry_run(session, run_id, settings=settings, actor=user.name)
    response.headers["Location"] = f"/api/v1/runs/{run.id}"
    return RunOut.model_validate(run)


@router.post("/{run_id}/clone", status_code=201)
def clone_run(
    run_id: str,
    response: Response,
    user: CurrentUser,
    database: DatabaseDep,
    settings: SettingsDep,
    idempotency_key: IdempotencyKey = None,
) -> RunOut:
    """Queue a run with the same configuration, from the beginning. `Idempotency-Key` as for a new run."""

    def clone(session: Session) -> Run:
        return control.clone_run(session, run_id, settings=settings, actor=user.name)

    fingerprint = hashlib.sha256(f"clone {run_id}".encode()).hexdigest()
    return answer_once(response, database, idempotency_key, fingerprint, clone)


@router.post("/{run_id}/move", openapi_extra=body_schema(MoveRequest))
def move_run(run_id: str, body: MoveBody, user: CurrentUser, database: DatabaseDep, settings: SettingsDep) -> RunOut:
    """Change a run's place in the queue."""
    move = body.value
    beside = move.ahead_of or move.behind_of
    with database.write() as session:
        if beside is None:
            first = move.to == "first"
            run = control.move_to_end(session, run_id, first=first, settings=settings, actor=user.name)
        else:
            ahead = move.ahead_of is not None
            run = control.move_beside(session, run_id, beside, ahead=ahead, settings=settings, actor=user.name)
    return RunOut.model_validate(run)


@router.patch("/{run_id}", openapi_extra=body_schema(RunChange))
def change_run(
    run_id: str,
    response: Response,
    body: ChangeBody,
    user: CurrentUser,
    database: DatabaseDep,
    settings: SettingsDep,
    if_match: IfMatch = None,
) -> RunOut:
    """Change a run's priority, name, tags, notes, or put it away. With `If-Match` only if nobody else has meanwhile."""
    change = body.value
    with database.write() as session:
        run = annotations.annotate(session, run_id, change, actor=user.name, if_match=if_match)
        if change.priority is not None:
            run = control.set_priority(session, run_id, change.priority, settings=settings, actor=user.name)
    response.headers["ETag"] = annotations.etag(run)
    return RunOut.model_validate(run)
