"""`/api/v1/runs`."""

from collections.abc import Callable, Sequence
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from fastapi.responses import StreamingResponse
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
    RunRow,
    RunTable,
    SearchOut,
    TimingList,
    TimingOut,
    as_json,
)
from server.auth import CurrentUser
from server.db.session import Database
from server.db.tables import Run, RunState
from server.services import annotations, checkpoints, idempotency, logs, run_list, runs, timings
from server.services.requests import RunRequest
from server.services.run_fields import NEWEST_FIRST, RunField
from server.services.run_list import MAX_QUERY
from server.services.run_values import parse_fields, value_of
from sparsify_core.metrics import mean_over_coders

router = APIRouter(prefix="/runs", tags=["runs"], dependencies=[SingleQuery])

RunBody = Annotated[Body[RunRequest], Depends(json_body(RunRequest))]
AttemptQuery = Annotated[int | None, Query(ge=1, le=10**9)]
NodeQuery = Annotated[int, Query(ge=0, le=10_000)]
IdempotencyKey = Annotated[str | None, Header(min_length=1, max_length=200, pattern=r"^[\x21-\x7e]+$")]


@router.get("", response_model=RunList | RunTable)
def list_runs(
    database: DatabaseDep,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    cursor: Annotated[str | None, Query(max_length=2000)] = None,
    state: RunState | None = None,
    q: Annotated[str, Query(max_length=MAX_QUERY)] = "",
    sort: Annotated[str, Query(max_length=100)] = NEWEST_FIRST,
    fields: Annotated[str | None, Query(max_length=MAX_QUERY)] = None,
) -> Response:
    """Runs that match the search `q` (docs/search.md), sorted by a field, `-` in front turns the order round.

    With `fields`, names separated by commas, only those of every run.
    """
    shown = None if fields is None else parse_fields(fields)
    with database.read_briefly() as session:
        page = run_list.list_runs(session, q=q, state=state, sort=sort, limit=limit, cursor=cursor)
    answer: RunList | RunTable
    if shown is None:
        # Their columns at once: asked for one by one, as attributes, they take three times as long.
        answer = RunList(items=[RunOut.model_validate(vars(row)) for row in page.items], next_cursor=page.next_cursor)
    else:
        answer = RunTable(items=[_table_row(row, shown) for row in page.items], next_cursor=page.next_cursor)
    # As a union of both it would be written in five times the time.
    return Response(answer.model_dump_json(), media_type="application/json")


def _table_row(run: Run, fields: Sequence[RunField]) -> RunRow:
    means = mean_over_coders(run.latest)
    return RunRow(id=run.id, values={field.name: as_json(value_of(field, run, means)) for field in fields})


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
def get_run(session: ReadSession, response: Response, run_id: str) -> RunOut:
    """One run. Its `ETag` names what people have written on it; send it as `If-Match` with a PATCH."""
    run = runs.get_run(session, run_id)
    response.headers["ETag"] = annotations.etag(run)
    return RunOut.model_validate(run)


@router.get("/{run_id}/timings")
def list_timings(
    session: ReadSession, run_id: str, limit: Annotated[int, Query(ge=1, le=10_000)] = timings.NEWEST
) -> TimingList:
    """Where the time of the steps that were measured last went, oldest first."""
    runs.get_run(session, run_id)
    rows = timings.newest(session, run_id, limit=limit)
    return TimingList(items=[TimingOut.model_validate(row) for row in rows])


@router.get("/{run_id}/health")
def get_health(request: Request, session: ReadSession, run_id: str) -> HealthOut:
    """What the checks of a run's training say: dead latents, a stuck FVU, spikes and more, each with a cure."""
    results = request.app.state.diagnoses.of(session, runs.get_run(session, run_id))
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


@router.get("/{run_id}/log/search")
def search_log(
    session: ReadSession,
    settings: SettingsDep,
    run_id: str,
    q: Annotated[str, Query(min_length=1, max_length=200)],
    attempt: AttemptQuery = None,
    node: NodeQuery = 0,
    rank: Annotated[int | None, Query(ge=0, le=99_999)] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = logs.MAX_HITS,
) -> SearchOut:
    """Lines of the whole log of the newest attempt, or of another, that contain `q`, whatever the case of letters; of
    one process where a `rank` is given.
    """
    run = runs.get_run(session, run_id)
    return SearchOut.model_validate(logs.search(settings, run, q, attempt=attempt, node=node, rank=rank, limit=limit))


@router.get("/{run_id}/log/download", response_class=StreamingResponse)
def download_log(
    session: ReadSession, settings: SettingsDep, run_id: str, attempt: AttemptQuery = None, node: NodeQuery = 0
) -> StreamingResponse:
    """The whole log of the newest attempt, or of another, as it was written."""
    run = runs.get_run(session, run_id)
    size, blocks = logs.whole(settings, run, attempt=attempt, node=node)
    name = f"{run.id}-{attempt or run.attempt}" + (f"-node-{node}" if node else "")
    headers = {"Content-Disposition": f'attachment; filename="{name}.log"', "Content-Length": str(size)}
    return StreamingResponse(blocks, media_type="text/plain; charset=utf-8", headers=headers)


@router.get("/{run_id}/log")
def get_log(
    session: ReadSession,
    settings: SettingsDep,
    run_id: str,
    attempt: AttemptQuery = None,
    node: NodeQuery = 0,
    offset: Annotated[int | None, Query(ge=0, le=2**53)] = None,
    limit: Annotated[int, Query(ge=1000, le=1_000_000)] = logs.LIMIT_BYTES,
    colours: bool = False,
) -> LogOut:
    """The end of the newest attempt's log; or on from `offset`, of another `attempt`, or of another `node` of a run on
    several. `colours` keeps the terminal's escapes for colours (SGR); all others are always left out.
    """
    run = runs.get_run(session, run_id)
    chunk = logs.tail(settings, run, attempt=attempt, node=node, offset=offset, limit=limit, colours=colours)
    return LogOut.model_validate(chunk)


@router.get("/{run_id}/checkpoints")
def list_checkpoints(session: ReadSession, run_id: str) -> CheckpointList:
    """The run's checkpoints, the newest step first."""
    runs.get_run(session, run_id)
    rows = checkpoints.list_checkpoints(session, run_id)
    return CheckpointList(items=[CheckpointOut.model_validate(row) for row in rows])
