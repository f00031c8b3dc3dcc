"""Series of metrics: of one run at `/api/v1/runs/{id}/metrics`, of several at `/api/v1/metrics`."""

from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import StreamingResponse

from server.api.dependencies import DatabaseDep, ReadSession, SingleQuery
from server.api.models import MetricsOut, OverlayOut, SeriesOut
from server.services import metrics, runs

router = APIRouter(tags=["metrics"], dependencies=[SingleQuery])

Step = Annotated[int | None, Query(ge=0, le=2**53)]
MaxPoints = Annotated[int, Query(ge=2, le=20_000)]
Keys = Annotated[list[str], Query(min_length=1, max_length=200)]


@router.get("/runs/{run_id}/metrics")
def get_metrics(
    session: ReadSession,
    run_id: str,
    key: Annotated[list[str] | None, Query(max_length=200)] = None,
    start: Step = None,
    end: Step = None,
    max_points: MaxPoints = metrics.MAX_POINTS,
) -> MetricsOut:
    """All series of a run, or those named by `key` (repeatable): each in at most about `max_points` buckets, those that
    meet steps `start` to `end`. More than two million points in all are refused."""
    runs.get_run(session, run_id)
    cursor = metrics.cursor(session, run_id)
    found = metrics.series(session, run_id, key, start=start, end=end, max_points=max_points)
    return MetricsOut(cursor=cursor, series={name: SeriesOut(**one) for name, one in found.items()})


@router.get("/runs/{run_id}/metrics.csv", response_class=StreamingResponse)
def download_metrics(
    session: ReadSession,
    database: DatabaseDep,
    run_id: str,
    key: Annotated[list[str] | None, Query(max_length=200)] = None,
) -> StreamingResponse:
    """Every point of all series of a run, or of those named by `key` (repeatable)."""
    run = runs.get_run(session, run_id)
    headers = {"Content-Disposition": f'attachment; filename="{run.id}-metrics.csv"'}
    return StreamingResponse(metrics.csv_pages(database, run.id, key), media_type="text/csv", headers=headers)


@router.get("/metrics")
def compare_metrics(
    session: ReadSession,
    run: Annotated[list[str], Query(min_length=1, max_length=metrics.MAX_RUNS)],
    key: Keys,
    start: Step = None,
    end: Step = None,
    max_points: MaxPoints = metrics.MAX_POINTS,
) -> OverlayOut:
    """The series named by `key` of every `run` (both repeatable), all in buckets of one width."""
    run_ids = [runs.get_run(session, run_id).id for run_id in dict.fromkeys(run)]
    found = metrics.overlay(session, run_ids, key, start=start, end=end, max_points=max_points)
    by_run = {run_id: {name: SeriesOut(**one) for name, one in of_run.items()} for run_id, of_run in found.items()}
    return OverlayOut(series=by_run)
