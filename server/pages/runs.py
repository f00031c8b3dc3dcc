"""The list of runs: `/runs`, its rows, and the way to it from `/`."""

from contextlib import suppress
from typing import Annotated, Any, Literal
from urllib.parse import urlencode

from fastapi import APIRouter, Form, Query, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse

from server.auth import CurrentUser
from server.db.tables import RunState
from server.errors import ConflictError
from server.pages.svg import sparkline
from server.pages.templating import is_partial, render
from server.pages.views import RunView
from server.services import control, feeds, presets, runs

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
            "runs": [RunView(row, sparkline(row.spark["values"])) for row in rows],
        }
    filters = {"q": q.strip(), "state": wanted}
    context |= filters | {
        "states": list(RunState),
        "query": _query(**filters, cursor=cursor),
        "is_filtered": bool(q.strip() or wanted or cursor),
        "has_demo": presets.demo_config(request.app.state.settings) is not None,
        "url": _url(**filters, cursor=cursor),
        "next_url": _url(**filters, cursor=next_cursor) if next_cursor else None,
    }
    return render(request, "runs/_list.html" if is_partial(request) else "runs/list.html", context, user=user)


@router.post("/runs/bulk")
def act_on_many(
    request: Request,
    user: CurrentUser,
    action: Annotated[Literal["cancel", "pause"], Form()],
    run: Annotated[list[str], Form()] = [],  # noqa: B006 - FastAPI copies it
    back: Annotated[str, Form()] = "",
) -> Response:
    """Cancel or pause the chosen runs; those that are over stay as they are."""
    settings = request.app.state.settings
    with request.app.state.db.write() as session:
        if action == "cancel":
            control.cancel_runs(session, run, settings=settings, actor=user.name)
        else:
            for run_id in sorted(set(run)):
                with suppress(ConflictError):  # it is over by now, which its row shows
                    control.pause_run(session, run_id, settings=settings, actor=user.name)
    return RedirectResponse(f"/runs?{back}" if back else "/runs", status_code=303)


@router.get("/runs/{run_id}/row")
def row(request: Request, user: CurrentUser, run_id: str) -> HTMLResponse:
    """One row of the table, for a live update."""
    with request.app.state.db.read() as session:
        found = runs.get_run(session, run_id)
        view = RunView(found, sparkline(found.spark["values"]))
    return render(request, "runs/_row.html", {"view": view}, user=user)


def _query(**values: str | None) -> str:
    return urlencode({name: value for name, value in values.items() if value})


def _url(**values: str | None) -> str:
    query = _query(**values)
    return "/runs" + (f"?{query}" if query else "")
