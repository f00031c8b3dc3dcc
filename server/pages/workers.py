"""The workers and what they train."""

from typing import Annotated, Literal

from fastapi import APIRouter, Form, Request
from fastapi.responses import HTMLResponse, RedirectResponse

from server.auth import CurrentUser
from server.pages.templating import is_partial, render
from server.scheduling import DeviceKind
from server.services import workers

router = APIRouter()


@router.get("/workers")
def page(request: Request, user: CurrentUser) -> HTMLResponse:
    """All workers, the connected ones first."""
    with request.app.state.db.read() as session:
        items = [
            {
                "row": row,
                "state": row.state if workers.is_alive(row) else "silent",
                "runs": workers.active_runs(session, row.id),
                "quarantined": workers.quarantined(session, row.id),
            }
            for row in workers.list_workers(session)
        ]
    items.sort(key=lambda item: item["state"] == "silent")
    template = "_workers.html" if is_partial(request) else "workers.html"
    return render(request, template, {"nav": "workers", "workers": items}, user=user)


@router.post("/workers/{worker_id}/drain")
def drain(request: Request, user: CurrentUser, worker_id: str) -> RedirectResponse:
    """Let a worker take nothing new."""
    return _set_draining(request, worker_id, is_draining=True)


@router.post("/workers/{worker_id}/undrain")
def undrain(request: Request, user: CurrentUser, worker_id: str) -> RedirectResponse:
    """Let a worker take runs again."""
    return _set_draining(request, worker_id, is_draining=False)


@router.post("/workers/{worker_id}/quarantine/{kind}/{index}/lift")
def lift_quarantine(
    request: Request,
    user: CurrentUser,
    worker_id: str,
    kind: DeviceKind,
    index: int,
    confirm: Annotated[Literal["yes"], Form()],
) -> RedirectResponse:
    """Give a quarantined device back to the queue."""
    settings = request.app.state.settings
    with request.app.state.db.write() as session:
        workers.lift_quarantine(session, worker_id, kind, index, settings=settings, actor=user.name)
    return RedirectResponse(f"/workers#worker-{worker_id}", status_code=303)


def _set_draining(request: Request, worker_id: str, *, is_draining: bool) -> RedirectResponse:
    with request.app.state.db.write() as session:
        workers.set_draining(session, worker_id, is_draining=is_draining, settings=request.app.state.settings)
    return RedirectResponse(f"/workers#worker-{worker_id}", status_code=303)
