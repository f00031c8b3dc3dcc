"""`/api/v1/sweeps`: many runs that differ in a few fields."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Response
from pydantic import BaseModel, ConfigDict, Field
from sqlmodel import Session

from server.api.dependencies import (
    Body,
    DatabaseDep,
    ReadSession,
    SettingsDep,
    SingleQuery,
    body_schema,
    json_body,
)
from server.api.models import StateList, StateOut
from server.api.plan_models import RangeOut
from server.api.runs import IdempotencyKey, made_once
from server.auth import CurrentUser
from server.db.ids import ID_PATTERN
from server.db.tables import Run, RunState, Sweep
from server.services import sweeps
from server.services.pareto import frontier
from server.services.sweep_plans import plan_runs
from server.services.sweep_spec import SweepRequest

router = APIRouter(prefix="/sweeps", tags=["sweeps"], dependencies=[SingleQuery])

SweepBody = Annotated[Body[SweepRequest], Depends(json_body(SweepRequest))]


class _Model(BaseModel):
    model_config = ConfigDict(use_attribute_docstrings=True)


class PlannedOut(_Model):
    """A run that a sweep would make."""

    name: str | None
    values: dict[str, Any]
    """Its own values, by the dotted name of the field."""


class SweepPlan(_Model):
    num_runs: int
    runs: list[PlannedOut]
    duration_s: RangeOut | None
    """Of one run after another; null where a model's shape is not known yet, or no length is given."""


class SweepOut(_Model):
    id: str
    name: str
    created_at: float
    num_runs: int
    states: dict[str, int]
    """Runs by state."""


class SweepList(_Model):
    items: list[SweepOut]
    next_cursor: str | None


class SweepRunOut(_Model):
    """A run of a sweep; numbers are means over its coders, on the held-out tokens where they were measured there."""

    id: str
    name: str
    state: RunState
    values: dict[str, Any]
    l0: float | None
    fvu: float | None
    delta_ce: float | None
    dead_frac: float | None


class SweepDetail(SweepOut):
    spec: dict[str, Any]
    """What was asked for."""
    runs: list[SweepRunOut]
    frontier: Annotated[
        dict[str, list[str]],
        Field(description="For `fvu` and `delta_ce`: ids of the runs that no other one beats in it and in L0."),
    ]


@router.post("/plan", openapi_extra=body_schema(SweepRequest))
def plan_sweep(body: SweepBody, session: ReadSession, settings: SettingsDep) -> SweepPlan:
    """The runs that a sweep would make, and how long they would take together; nothing is queued."""
    planned = sweeps.plan_sweep(body.value, settings)
    total = plan_runs(session, planned, settings).duration_s
    return SweepPlan(
        num_runs=len(planned),
        runs=[PlannedOut(name=one.request.name, values=one.values) for one in planned],
        duration_s=None if total is None else RangeOut.model_validate(total),
    )


@router.post("", status_code=201, openapi_extra=body_schema(SweepRequest))
def create_sweep(
    response: Response,
    body: SweepBody,
    user: CurrentUser,
    database: DatabaseDep,
    settings: SettingsDep,
    idempotency_key: IdempotencyKey = None,
) -> SweepDetail:
    """Queue all runs of a sweep, or none. With an `Idempotency-Key` a repeated request answers with the first sweep."""

    def create(session: Session) -> Run:
        sweep = sweeps.create_sweep(session, body.value, settings=settings, actor=user.name)
        return sweeps.runs_of(session, sweep.id)[0]

    sweep_id = made_once(database, idempotency_key, body.sha256, create).sweep_id or ""
    response.headers["Location"] = f"/api/v1/sweeps/{sweep_id}"
    with database.read() as session:
        return _detail(sweeps.view_sweep(session, sweep_id))


@router.get("")
def list_sweeps(
    session: ReadSession,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    cursor: Annotated[str | None, Query(pattern=ID_PATTERN)] = None,
) -> SweepList:
    """Sweeps, newest first."""
    found = sweeps.list_sweeps(session, limit=limit + 1, before=cursor)
    items = [_plain(sweep, states) for sweep, states in found[:limit]]
    return SweepList(items=items, next_cursor=items[-1].id if len(found) > limit else None)


@router.get("/{sweep_id}")
def get_sweep(session: ReadSession, sweep_id: str) -> SweepDetail:
    """One sweep with its runs."""
    return _detail(sweeps.view_sweep(session, sweep_id))


@router.post("/{sweep_id}/cancel")
def cancel_sweep(sweep_id: str, user: CurrentUser, database: DatabaseDep, settings: SettingsDep) -> StateList:
    """End all runs of a sweep that are not over, and answer with these."""
    with database.write() as session:
        ended = sweeps.cancel_sweep(session, sweep_id, settings=settings, actor=user.name)
    return StateList(items=[StateOut.model_validate(run) for run in ended])


def _plain(sweep: Sweep, states: dict[str, int]) -> SweepOut:
    return SweepOut(
        id=sweep.id, name=sweep.name, created_at=sweep.created_at, num_runs=sum(states.values()), states=states
    )


def _detail(view: sweeps.SweepView) -> SweepDetail:
    runs = [
        SweepRunOut(id=one.run.id, name=one.run.name, state=RunState(one.run.state), values=one.values, **one.numbers)
        for one in view.runs
    ]
    best = {
        loss: [runs[i].id for i in frontier([(one.numbers["l0"], one.numbers[loss]) for one in view.runs])]
        for loss in ("fvu", "delta_ce")
    }
    plain = _plain(view.sweep, view.counts).model_dump()
    return SweepDetail(**plain, spec=view.sweep.spec, runs=runs, frontier=best)
