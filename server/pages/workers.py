"""The workers and what they train."""

import time

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from server.auth import CurrentUser
from server.pages.templating import is_partial, render
from server.services import workers

router = APIRouter()


@router.get("/workers")
def page(request: Request, user: CurrentUser) -> HTMLResponse:
    """All workers, the connected ones first."""
    with request.app.state.db.read() as session:
        items = [
            {
                "row": row,
                "is_alive": time.time() - row.seen_at < workers.ALIVE_S,
                "runs": workers.active_runs(session, row.id),
            }
            for row in workers.list_workers(session)
        ]
    items.sort(key=lambda item: not item["is_alive"])
    template = "_workers.html" if is_partial(request) else "workers.html"
    return render(request, template, {"nav": "workers", "workers": items}, user=user)
