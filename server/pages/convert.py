"""`/runs/new/convert` and `/runs/new/modules`: the launch form in another notation, and its hookpoint picker."""

from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool
from pydantic import ValidationError

from server.auth import CurrentUser
from server.errors import InvalidError
from server.pages import forms, picker, tabs
from server.pages.launch import errors_of, form_again, pairs_of, text_again, write_tab
from server.pages.templating import render
from server.services.notation import NotationError

router = APIRouter()


@router.post("/runs/new/convert")
async def convert(request: Request, user: CurrentUser) -> Response:
    """Show the tab `to`. What is typed in the shown one is read first, unless `discard` is sent."""
    return await run_in_threadpool(_convert, request, user, await pairs_of(request))


def _convert(request: Request, user: Any, pairs: tabs.Pairs) -> Response:
    typed = dict(pairs)
    notes: tuple[str, ...] = ()
    if "discard" not in typed:
        try:
            pairs, notes = tabs.read(pairs)
        except NotationError as error:
            return text_again(request, user, pairs, error)
    try:
        tab = write_tab(request, typed.get("to", typed.get("tab", "")), pairs)
    except (ValidationError, InvalidError) as error:
        heading = "This cannot be written down yet"
        return form_again(request, user, pairs, errors_of(error), status=422, heading=heading)
    more: dict[str, Any] = {"tab": tab, "notes": notes}
    if typed.get("read") == "modules":
        more["picker"] = picker.build(request.app.state.settings, forms.parse(pairs)[0], reads=True)
    return form_again(request, user, pairs, [], status=200, **more)


@router.post("/runs/new/modules")
async def modules(request: Request, user: CurrentUser) -> Response:
    """The picker alone, while somebody types; `read` in the form reads a model that is not known yet."""
    return await run_in_threadpool(_modules, request, user, await pairs_of(request))


def _modules(request: Request, user: Any, pairs: tabs.Pairs) -> Response:
    settings = request.app.state.settings
    found = picker.build(settings, forms.parse(pairs)[0], reads="read" in dict(pairs))
    return render(request, "runs/new/_picker.html", {"picker": found}, user=user)
