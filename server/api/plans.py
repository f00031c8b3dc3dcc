"""`POST /api/v1/runs/plan`: what a run would need, before it is asked for; and what it needed in the end."""

from fastapi import APIRouter

from server.api.dependencies import DatabaseDep, ReadSession, SettingsDep, SingleQuery, body_schema
from server.api.plan_models import PlanOut, PredictionOut
from server.api.runs import RunBody
from server.errors import NotFoundError
from server.services import forecasts, plans, runs
from server.services.requests import RunRequest

router = APIRouter(prefix="/runs", tags=["runs"], dependencies=[SingleQuery])


@router.post("/plan", openapi_extra=body_schema(RunRequest))
def plan_run(body: RunBody, database: DatabaseDep, settings: SettingsDep) -> PlanOut:
    """Memory, speed, duration, disk, place in the queue and warnings of a run as if it were queued now; nothing is.

    The first plan for a model reads its configuration, which takes some seconds.
    """
    shape, problem = plans.shape_for(settings, body.value.config, waits=True)
    with database.read() as session:
        plan = plans.make_plan(session, body.value, settings=settings, shape=shape, shape_problem=problem)
    return PlanOut.model_validate(plan)


@router.get("/{run_id}/prediction")
def get_prediction(session: ReadSession, run_id: str) -> PredictionOut:
    """What the run was predicted to need, and what it needed. 404 where the model was not known then."""
    runs.get_run(session, run_id)
    found = forecasts.prediction_of(session, run_id)
    if found is None:
        raise NotFoundError("Nothing was predicted for this run.")
    return PredictionOut.model_validate(found)
