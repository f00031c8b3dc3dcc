"""`/api/v1/runs/{id}/lineage`: where a run comes from, and which runs came of it."""

from typing import Annotated

from fastapi import APIRouter, Query

from server.api.dependencies import ReadSession, SingleQuery
from server.api.models import LineageOut, SweptOut, kin_out
from server.services import lineage, runs
from server.services.lineage import MAX_DESCENDANTS

router = APIRouter(prefix="/runs", tags=["runs"], dependencies=[SingleQuery])


@router.get("/{run_id}/lineage")
def get_lineage(
    session: ReadSession, run_id: str, limit: Annotated[int, Query(ge=1, le=MAX_DESCENDANTS)] = 50
) -> LineageOut:
    """A run's ancestors, and at most `limit` of the runs that came of it: how each was made of its parent, and with
    what other configuration."""
    found = lineage.family(session, runs.get_run(session, run_id), limit=limit)
    members = [kin_out(kin) for kin in found.root.members]
    place = [member.id for member in members].index(run_id)
    return LineageOut(
        sweep=found.sweep and SweptOut(id=found.sweep.id, name=found.sweep.name, num_runs=found.num_swept),
        ancestors=members[:place],
        run=members[place],
        descendants=members[place + 1 :],
        has_more=found.has_more,
    )
