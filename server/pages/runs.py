"""The list of runs: `/runs`, its rows and columns, and the way to it from `/`."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from sqlmodel import Session, select

from server.auth import CurrentUser
from server.db.tables import Run, RunState
from server.errors import InvalidError
from server.pages import columns
from server.pages.columns import Column
from server.pages.list_state import ListState, read_list_state
from server.pages.svg import sparkline
from server.pages.templating import is_partial, render
from server.pages.views import RunView
from server.services import feeds, presets, run_list, runs, saved_views
from server.services.run_list import MAX_QUERY, Page
from server.services.run_values import parse_fields

router = APIRouter()
PAGE_ROWS = 30

StateOfList = Annotated[ListState, Depends(read_list_state)]


@router.get("/")
def index(user: CurrentUser) -> Response:
    return RedirectResponse("/runs", status_code=303)


@router.get("/runs")
def list_runs(request: Request, user: CurrentUser, here: StateOfList) -> HTMLResponse:
    """The table of runs, as the query string says. What that gets wrong is said beside the box."""
    with request.app.state.db.read_briefly() as session:
        try:
            page, shown, problem = _page(session, here), _columns(here), ""
        except InvalidError as error:
            if is_partial(request):
                return render(request, "runs/_problem.html", {"problem": error.detail}, user=user, status=422)
            page, shown, problem = Page([], None), _columns(ListState()), error.detail
        context = _context(session, here) | {
            "runs": [RunView(row, sparkline(row.spark["values"])) for row in page.items],
            "has_runs": bool(page.items) or session.exec(select(Run.id).limit(1)).first() is not None,
            "columns": shown,
            "problem": problem,
            "next_url": here.at(page.next_cursor).url if page.next_cursor else None,
            "has_demo": presets.demo_config(request.app.state.settings) is not None,
        }
    return render(request, "runs/_answer.html" if is_partial(request) else "runs/list.html", context, user=user)


@router.get("/runs/columns")
def choose_columns(request: Request, user: CurrentUser, here: StateOfList) -> HTMLResponse:
    """A form with all columns that there are; it leads to the list with those chosen."""
    groups = columns.groups([column.field for column in _columns(here)])
    template = "runs/_columns.html" if is_partial(request) else "runs/columns.html"
    return render(request, template, {"nav": "runs", "here": here, "groups": groups}, user=user)


@router.get("/runs/count")
def count(request: Request, user: CurrentUser, here: StateOfList) -> HTMLResponse:
    """How many runs match, for the question whether all of them are meant."""
    with request.app.state.db.read() as session:
        number = run_list.count_runs(session, here.q, here.state or None)
    return render(request, "runs/_count.html", {"number": number}, user=user)


@router.get("/runs/{run_id}/row")
def row(
    request: Request, user: CurrentUser, run_id: str, fields: Annotated[str, Query(max_length=MAX_QUERY)] = ""
) -> HTMLResponse:
    """One row of the table, for a live update."""
    here = ListState(fields=fields)
    with request.app.state.db.read() as session:
        found = runs.get_run(session, run_id)
        view = RunView(found, sparkline(found.spark["values"]))
    return render(request, "runs/_row.html", {"view": view, "here": here, "columns": _columns(here)}, user=user)


def _page(session: Session, here: ListState) -> Page:
    wanted: dict[str, Any] = {"q": here.q, "state": here.state or None, "sort": here.order}
    return run_list.list_runs(session, limit=PAGE_ROWS, cursor=here.cursor or None, **wanted)


def _columns(here: ListState) -> list[Column]:
    return [Column(field) for field in parse_fields(here.fields or columns.DEFAULT)]


def _context(session: Session, here: ListState) -> dict[str, Any]:
    return {
        "nav": "runs",
        "here": here,
        "states": list(RunState),
        "views": saved_views.list_views(session),
        "cursor": feeds.list_cursor(session),
    }
