"""Logging in with a one-time code, and out."""

from typing import Annotated

from fastapi import APIRouter, Form, Query, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse

from server.auth import log_in, log_out, set_cookie
from server.errors import TooManyRequestsError, UnauthorizedError
from server.pages.templating import render

router = APIRouter()


@router.get("/login")
def page(request: Request, wanted: Annotated[str, Query(alias="next", max_length=2000)] = "") -> HTMLResponse:
    """Asks for the code. The page's script takes it from the address's fragment, which no server ever sees."""
    return render(request, "login.html", {"next": _local(wanted)})


@router.post("/login")
def enter(
    request: Request,
    code: Annotated[str, Form(max_length=200)] = "",
    wanted: Annotated[str, Form(alias="next", max_length=2000)] = "",
) -> Response:
    """Trade the code for a session."""
    target = _local(wanted)
    try:
        secret = log_in(request, code.strip())
    except (UnauthorizedError, TooManyRequestsError) as error:
        return render(request, "login.html", {"next": target, "error": error.detail}, status=error.status)
    response = RedirectResponse(target or "/runs", status_code=303)
    set_cookie(response, request.app.state.settings, secret)
    return response


@router.post("/logout")
def leave(request: Request) -> Response:
    """End the session."""
    response = RedirectResponse("/login", status_code=303)
    log_out(request, response)
    return response


def _local(target: str) -> str:
    """`target` when it is a path of ours, else nothing: a link must not lead a freshly logged-in person elsewhere."""
    is_path = target.startswith("/") and not target.startswith("//")
    return target if is_path and "\\" not in target and target.isprintable() else ""
