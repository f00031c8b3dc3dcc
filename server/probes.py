"""`/healthz` and `/readyz`, for whatever watches the server from outside: no login, and nothing that is secret."""

from typing import Any

from fastapi import APIRouter, Request

from server.db.session import Database
from server.services import health

router = APIRouter(include_in_schema=False)


@router.get("/healthz")
async def healthz() -> dict[str, str]:
    """Whether the process answers."""
    return {"status": "ok"}


@router.get("/readyz")
def readyz(request: Request) -> dict[str, Any]:
    """Whether requests can be served: 503 without a database. Otherwise `ready`, or `degraded` with the reasons."""
    state = request.app.state
    database: Database = state.db
    with database.read() as session:
        found = health.examine(session, state.settings, state.hints)
    return {
        "status": "degraded" if found.symptoms else "ready",
        "reasons": [symptom.code for symptom in found.symptoms],
        "broker_age_s": found.broker_age_s,
        "tick_age_s": found.tick_age_s,
        "consumer_age_s": found.consumer_age_s,
    }
