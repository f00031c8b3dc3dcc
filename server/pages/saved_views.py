"""Keeping, renaming and forgetting views of the list of runs."""

from typing import Annotated

from fastapi import APIRouter, Form, Request, Response
from fastapi.responses import RedirectResponse

from server.auth import CurrentUser
from server.errors import ConflictError, InvalidError
from server.pages.templating import render
from server.services import saved_views

router = APIRouter(prefix="/runs/views")


@router.post("")
def save(
    request: Request,
    user: CurrentUser,
    name: Annotated[str, Form(max_length=60)],
    query: Annotated[str, Form(max_length=4000)] = "",
    replaces: Annotated[bool, Form()] = False,
) -> Response:
    """Keep what the list shows now under a name; where there is a view of that name, ask whether to replace it."""
    wanted = _name(name), _query(query)
    try:
        with request.app.state.db.write() as session:
            view = saved_views.save_view(session, *wanted, replaces=replaces)
    except ConflictError:
        return _ask(request, user, *wanted)
    return _show(view.query)


def _ask(request: Request, user: CurrentUser, name: str, query: str) -> Response:
    with request.app.state.db.read() as session:
        before = saved_views.named(session, name)
    shown = {"before": before.query if before else "", "after": query}
    words = {when: saved_views.in_words(one) for when, one in shown.items()}
    context = {"nav": "runs", "name": name, "shown": shown, "words": words}
    return render(request, "runs/view_taken.html", context, user=user, status=409)


@router.post("/{view_id}/rename")
def rename(
    request: Request, user: CurrentUser, view_id: str, name: Annotated[str, Form(max_length=60)]
) -> RedirectResponse:
    """Give a view another name."""
    wanted = _name(name)
    with request.app.state.db.write() as session:
        view = saved_views.change_view(session, view_id, name=wanted)
    return _show(view.query)


def _name(typed: str) -> str:
    try:
        return saved_views.view_name(typed)
    except ValueError as error:
        raise InvalidError.field(("name",), f"The view was not kept: {error}.", "name") from None


def _query(typed: str) -> str:
    try:
        return saved_views.plain_query(typed)
    except ValueError as error:
        raise InvalidError.field(("query",), f"The view was not kept: {error}.", "query") from None


def _show(query: str) -> RedirectResponse:
    return RedirectResponse(f"/runs?{query}" if query else "/runs", status_code=303)


@router.post("/{view_id}/delete")
def delete(request: Request, user: CurrentUser, view_id: str) -> Response:
    """Forget a view."""
    with request.app.state.db.write() as session:
        saved_views.delete_view(session, view_id)
    return RedirectResponse("/runs", status_code=303)
