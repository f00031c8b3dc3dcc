"""What is done to many runs of the list at once."""

from typing import Annotated, Literal
from urllib.parse import urlencode

from fastapi import APIRouter, Form, Request, Response
from fastapi.responses import RedirectResponse
from pydantic import TypeAdapter, ValidationError

from server.auth import CurrentUser
from server.db.tables import RunState
from server.errors import InvalidError
from server.pages.templating import is_partial, render
from server.services import bulk
from server.services.annotations import Tag
from server.services.bulk import BulkAction
from server.services.run_list import MAX_QUERY

router = APIRouter()
_TAG: TypeAdapter[str] = TypeAdapter(Tag)

DONE = {
    BulkAction.CANCEL: "cancelled",
    BulkAction.PAUSE: "asked to pause",
    BulkAction.RESUME: "resumed",
    BulkAction.ARCHIVE: "archived",
    BulkAction.RESTORE: "taken out of the archive",
    BulkAction.TAG: "tagged",
    BulkAction.UNTAG: "untagged",
}


@router.post("/runs/bulk")
def act_on_many(
    request: Request,
    user: CurrentUser,
    action: Annotated[BulkAction | Literal["compare"], Form()],
    run: Annotated[list[str], Form()] = [],  # noqa: B006 - FastAPI copies it
    everything: Annotated[bool, Form()] = False,
    q: Annotated[str, Form(max_length=MAX_QUERY)] = "",
    state: Annotated[RunState | Literal[""], Form()] = "",
    tag: Annotated[str, Form()] = "",
    back: Annotated[str, Form(max_length=4000)] = "",
) -> Response:
    """Ask the same of the chosen runs, or of all that the list shows, and say of each what became of it."""
    if action == "compare":
        return RedirectResponse(f"/compare?{urlencode([('run', run_id) for run_id in run])}", status_code=303)
    asked = BulkAction(action)
    wanted = _tag(tag) if asked in (BulkAction.TAG, BulkAction.UNTAG) else ""
    how = {"settings": request.app.state.settings, "actor": user.name}
    with request.app.state.db.write() as session:
        ids = bulk.chosen_runs(session, q, state or None) if everything else run
        outcomes = bulk.act_on_many(session, ids, asked, tag=wanted, **how)
    context = {
        "nav": "runs",
        "done": [each.run for each in outcomes if each.is_done],
        "refused": [each for each in outcomes if not each.is_done],
        "what": f"{DONE[asked]} {wanted}".strip(),
        "back": f"/runs?{back}" if back else "/runs",
    }
    return render(request, "runs/_outcome.html" if is_partial(request) else "runs/outcome.html", context, user=user)


def _tag(text: str) -> str:
    try:
        return _TAG.validate_python(text)
    except ValidationError:
        problem = "A tag has letters, digits and . / + - _, at most 32 of them, and no spaces."
        raise InvalidError.field(("tag",), problem, "tag") from None
