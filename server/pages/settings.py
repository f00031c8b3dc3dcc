"""Settings: tokens for the REST API."""

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from server.auth import CurrentUser
from server.pages.templating import render
from server.services import tokens

router = APIRouter()


@router.get("/settings")
def page(request: Request, user: CurrentUser) -> HTMLResponse:
    """All tokens, newest first."""
    return _page(request, user)


def _page(request, user, **extra):
    with request.app.state.db.read() as session:
        rows = tokens.list_tokens(session)
    context = {"nav": "settings", "tokens": rows, "base_url": str(request.base_url).rstrip("/")} | extra
    return render(request, "settings.html", context, user=user)
