"""`/api/v1/runs`."""

from collections.abc import Callable
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Query, Response
from sqlalchemy.exc import IntegrityError
from sqlmodel import Session

from server.api.dependencies import Body, DatabaseDep, ReadSession, SettingsDep, SingleQuery, body_schema, json_body
from server.api.models import (
    CheckOut,
    CheckpointList,
    CheckpointOut,
    EventList,
    EventOut,
    FindingOut,
    HealthOut,
    LogOut,
    RunList,
    RunOut,
    TimingList,
    TimingOut,
)
from server.auth import CurrentUser
from server.db.session import Database
from server.db.tables import Run, RunState
from server.services import checkpoints, idempotency, logs, runs, timings
from server.services.diagnosis import diagnose_run
from server.services.requests import RunRequest

router = APIRouter(prefix="/runs", tags=["runs"], dependencies=[SingleQuery])

RunBody = Annotated[Body[RunRequest], Depends(json_body(RunRequest))]
IdempotencyKey = Annotated[str | None, Header(min_length=1, max_length=200, pattern=r"^[\x21-\x7e]+$")]


@router.get("")
def list_runs(
    session: ReadSession,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    cursor: Annotated[str | None, Query(max_length=200)] = None,
    state: RunState | None = None,
    q: Annotated[str | None, Query(max_length=200)] = None,
) -> RunList:
    """Runs, newest first."""
    page = runs.list_runs(session, limit=limit, cursor=cursor, state=state, q=q)
    return RunList(items=[RunOut.model_validate(row) for row in page.items], next_cursor=page.next_cursor)


@router.post("", status_code=201, openapi_extra=body_schema(RunRequest))
def create_run(
    response: Response,
    body: RunBody,
    user: CurrentUser,
    database: DatabaseDep,
    settings: SettingsDep,
    idempotency_key: IdempotencyKey = None,
) -> RunOut:
    """Queue a run. With an `Idempotency-Key` a repeated request answers with the run of the first."""

    def create(session: Session) -> Run:
        return runs.create_run(session, body.value, settings=settings, actor=user.name)

    return answer_once(response, database, idempotency_key, body.sha256, create)


def answer_once(
    response: Response, database: Database, key: str | None, fingerprint: str, create: Callable[[Session], Run]
) -> RunOut:
    """Answer with the run that `create` makes, or with the one that it made for this key before."""
    run = made_once(database, key, fingerprint, create)
    response.headers["Location"] = f"/api/v1/runs/{run.id}"
    return RunOut.model_validate(run)


def made_once(database: Database, key: str | None, fingerprint: str, create: Callable[[Session], Run]) -> Run:
    """The run that `create` makes, or the one that it made for this key before, in a transaction of its own."""

    def attempt() -> Run:
        with database.write() as session:
            return idempotency.once(session, key, fingerprint, lambda: create(session))

    try:
        return attempt()
    except IntegrityError:  # the same key at the same moment: the other request has made the run
        return attempt()


@router.get("/{run_id}")
def get_run(session: ReadSession, run_id: str) -> RunOut:
    """One run."""
    return RunOut.model_validate(runs.get_run(session, run_id))


@router.get("/{run_id}/timings")
def list_timings(
    session: ReadSession, run_id: str, limit: Annotated[int, Query(ge=1, le=10_000)] = timings.NEWEST
) -> TimingList:
    """Where the time of the steps that were measured last went, oldest first."""
    runs.get_run(session, run_id)
    rows = timings.newest(session, run_id, limit=limit)
    return TimingList(items=[TimingOut.model_validate(row) for row in rows])


@router.get("/{run_id}/health")
def get_health(session: ReadSession, run_id: str) -> HealthOut:
    """What the checks of a run's training say: dead latents, a stuck FVU, spikes and more, each with a cure."""
    results = diagnose_run(session, runs.get_run(session, run_id))
    return HealthOut(
        checks=[
            CheckOut(
                code=result.check.code,
                label=result.check.label,
                state=result.state,
                finding=result.finding and FindingOut.model_validate(result.finding),
            )
            for result in results
        ]
    )


@router.get("/{run_id}/events")
def list_events(session: ReadSession, run_id: str) -> EventList:
    """The run's history, oldest first."""
    runs.get_run(session, run_id)
    return EventList(items=[EventOut.model_validate(row) for row in runs.history(session, run_id)])


@router.get("/{run_id}/log")
def get_log(
    session: ReadSession,
    settings: SettingsDep,
    run_id: str,
    attempt: Annotated[int | None, Query(ge=1, le=10**9)] = None,
    offset: Annotated[int | None, Query(ge=0, le=2**53)] = None,
    limit: Annotated[int, Query(ge=1000, le=1_000_000)] = logs.LIMIT_BYTES,
) -> LogOut:
    """The end of the newest attempt's log; or on from `offset`, or of another `attempt`."""
    run = runs.get_run(session, run_id)
    return LogOut.model_validate(logs.tail(settings, run, attempt=attempt, offset=offset, limit=limit))


@router.get("/{run_id}/checkpoints")
def list_checkpoints(session: ReadSession, run_id: str) -> CheckpointList:
    """The run's checkpoints, the newest step first."""
    runs.get_run(session, run_id)
    rows = checkpoints.list_checkpoints(session, run_id)
    return CheckpointList(items=[CheckpointOut.model_validate(row) for row in rows])
