"""What every page says at its top while something is wrong; the region is fetched again every few seconds."""

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse

from server.auth import CurrentUser
from server.pages.templating import render
from server.services import queue_state

router = APIRouter()


@router.get("/banners")
def banners(request: Request, user: CurrentUser) -> HTMLResponse:
    """The banners alone."""
    return render(request, "_banners.html", {}, user=user)


@router.post("/queue/resume")
def resume_queue(request: Request, user: CurrentUser) -> Response:
    """Let queued runs start again."""
    with request.app.state.db.write() as session:
        queue_state.resume_queue(session, settings=request.app.state.settings)
    return RedirectResponse("/runs", status_code=303)
