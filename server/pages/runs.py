"""The list of runs: `/runs`, its rows, and the way to it from `/`."""

from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse

from server.auth import CurrentUser
from server.db.tables import RunState
from server.pages.svg import sparkline
from server.pages.templating import is_partial, render
from server.pages.views import RunView
from server.services import feeds, metrics, presets, runs

router = APIRouter()
PAGE_ROWS = 30


@router.get("/")
def index(user: CurrentUser) -> Response:
    return RedirectResponse("/runs", status_code=303)


@router.get("/runs")
def list_runs(
    request: Request,
    user: CurrentUser,
    q: Annotated[str, Query(max_length=200)] = "",
    state: str = "",
    cursor: str = "",
) -> HTMLResponse:
    """The table of runs, newest first, filtered by the query string."""
    wanted = state if state in set(RunState) else ""
    with request.app.state.db.read() as session:
        rows, next_cursor = runs.list_runs(
            session, limit=PAGE_ROWS, cursor=cursor or None, state=wanted or None, q=q.strip() or None
        )
        context: dict[str, Any] = {
            "nav": "runs",
            "cursor": feeds.list_cursor(session),
            "runs": [RunView(row, sparkline(metrics.spark(session, row.id))) for row in rows],
        }
    filters = {"q": q.strip(), "state": wanted}
    context |= filters | {
        "states": list(RunState),
        "is_filtered": bool(q.strip() or wanted or cursor),
        "has_demo": presets.demo_config(request.app.state.settings) is not None,
        "url": _url(**filters, cursor=cursor),
        "next_url": _url(**filters, cursor=next_cursor) if next_cursor else None,
    }
    return render(request, "runs/_list.html" if is_partial(request) else "runs/list.html", context, user=user)


@router.get("/runs/{run_id}/row")
def row(request: Request, user: CurrentUser, run_id: str) -> HTMLResponse:
    """One row of the table, for a live update."""
    with request.app.state.db.read() as session:
        found = runs.get_run(session, run_id)
        view = RunView(found, sparkline(metrics.spark(session, run_id)))
    return render(request, "runs/_row.html", {"view": view}, user=user)


def _url(**values: str | None) -> str:
    query = urlencode({name: value for name, value in values.items() if value})
    return "/runs" + (f"?{query}" if query else "")
