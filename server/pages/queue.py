"""The queue: `/queue` shows what trains and who waits, and is where their order is changed."""

from typing import Annotated, Any

from fastapi import APIRouter, Form, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from sqlmodel import Session

from server.auth import CurrentUser
from server.pages.templating import is_partial, render
from server.pages.views import RunView, places
from server.services import control, feeds, lineup, queue_state, workers

router = APIRouter(prefix="/queue")


@router.get("")
def page(request: Request, user: CurrentUser, moved: str = "") -> HTMLResponse:
    """The page, or its region alone; `moved` is a run whose new place is said aloud."""
    with request.app.state.db.read() as session:
        context = _context(session) | {"cursor": feeds.list_cursor(session)}
    context |= {"nav": "queue", "said": _place_of(context["queued"], moved)}
    return render(request, "queue/_answer.html" if is_partial(request) else "queue/page.html", context, user=user)


@router.post("/move")
def move(
    request: Request,
    user: CurrentUser,
    run: Annotated[str, Form()],
    ahead_of: Annotated[str, Form()] = "",
    behind_of: Annotated[str, Form()] = "",
) -> Response:
    """Put a run directly ahead of another one or behind it, whatever has moved since the page was drawn."""
    with request.app.state.db.write() as session:
        control.move_beside(
            session,
            run,
            ahead_of or behind_of,
            ahead=bool(ahead_of),
            settings=request.app.state.settings,
            actor=user.name,
        )
    return RedirectResponse(f"/queue?moved={run}", status_code=303)


@router.post("/priority")
def priority(
    request: Request, user: CurrentUser, run: Annotated[str, Form()], priority: Annotated[int, Form(ge=-1000, le=1000)]
) -> Response:
    """Change a run's priority."""
    with request.app.state.db.write() as session:
        control.set_priority(session, run, priority, settings=request.app.state.settings, actor=user.name)
    return RedirectResponse(f"/queue?moved={run}", status_code=303)


@router.post("/pause")
def pause(request: Request, user: CurrentUser) -> Response:
    """Start no queued run until the queue is resumed."""
    with request.app.state.db.write() as session:
        queue_state.pause_queue(session, settings=request.app.state.settings)
    return RedirectResponse("/queue", status_code=303)


@router.post("/resume")
def resume(request: Request, user: CurrentUser) -> Response:
    """Let queued runs start again."""
    with request.app.state.db.write() as session:
        queue_state.resume_queue(session, settings=request.app.state.settings)
    return RedirectResponse("/queue", status_code=303)


@router.post("/cancel")
def cancel_all(request: Request, user: CurrentUser) -> Response:
    """Cancel every run that is not over."""
    with request.app.state.db.write() as session:
        control.cancel_runs(session, None, settings=request.app.state.settings, actor=user.name)
    return RedirectResponse("/queue", status_code=303)


def _context(session: Session) -> dict[str, Any]:
    found = lineup.read_lineup(session)
    return {
        "lineup": found,
        "active": [(RunView(run), places(nodes)) for run, nodes in found.active],
        "queued": [RunView(run) for run in found.queued],
        "retrying": [RunView(run) for run in found.retrying],
        "paused": [RunView(run) for run in found.paused],
        "num_workers": workers.count_alive(session),
    }


def _place_of(queued: list[RunView], run_id: str) -> str:
    for place, view in enumerate(queued, start=1):
        if view.run.id == run_id:
            return f"{view.run.name} is now number {place} of {len(queued)} in the queue."
    return ""
