"""Keeping and forgetting views of the list of runs."""

from typing import Annotated

from fastapi import APIRouter, Form, Request, Response
from fastapi.responses import RedirectResponse

from server.auth import CurrentUser
from server.errors import InvalidError
from server.services import saved_views

router = APIRouter(prefix="/runs/views")


@router.post("")
def save(
    request: Request,
    user: CurrentUser,
    name: Annotated[str, Form(max_length=60)],
    query: Annotated[str, Form(max_length=4000)] = "",
) -> Response:
    """Keep what the list shows now under a name."""
    try:
        wanted = saved_views.view_name(name), saved_views.plain_query(query)
    except ValueError as error:
        raise InvalidError.field(("name",), f"The view was not kept: {error}.", "name") from None
    with request.app.state.db.write() as session:
        view = saved_views.save_view(session, *wanted)
    return RedirectResponse(f"/runs?{view.query}" if view.query else "/runs", status_code=303)


@router.post("/{view_id}/delete")
def delete(request: Request, user: CurrentUser, view_id: str) -> Response:
    """Forget a view."""
    with request.app.state.db.write() as session:
        saved_views.delete_view(session, view_id)
    return RedirectResponse("/runs", status_code=303)
