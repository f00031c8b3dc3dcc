"""Settings: tokens for the REST API."""

from typing import Annotated, Any

from fastapi import APIRouter, Form, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse

from server.auth import CurrentUser
from server.errors import InvalidError
from server.pages.templating import render
from server.services import tokens

router = APIRouter()


@router.get("/settings")
def page(request: Request, user: CurrentUser) -> HTMLResponse:
    """All tokens, newest first."""
    return _page(request, user)


@router.post("/settings/tokens")
def create(request: Request, user: CurrentUser, name: Annotated[str, Form(max_length=1000)] = "") -> HTMLResponse:
    """Make a token and show it, this once: the answer is the page itself, so that no address and no store has it."""
    try:
        with request.app.state.db.write() as session:
            token, secret = tokens.create_token(session, name)
    except InvalidError as error:
        return _page(request, user, status=422, error=error.detail)
    return _page(request, user, new_token=secret, new_token_name=token.name)


@router.post("/settings/tokens/{token_id}/revoke")
def revoke(request: Request, user: CurrentUser, token_id: str) -> Response:
    """A revoked token opens nothing any more."""
    with request.app.state.db.write() as session:
        tokens.revoke_token(session, token_id)
    return RedirectResponse("/settings", status_code=303)


def _page(request: Request, user: CurrentUser, *, status: int = 200, **more: Any) -> HTMLResponse:
    with request.app.state.db.read() as session:
        rows = tokens.list_tokens(session)
    context = {"nav": "settings", "tokens": rows, "base_url": str(request.base_url).rstrip("/")} | more
    return render(request, "settings.html", context, user=user, status=status)
