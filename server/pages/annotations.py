"""What people write on a run, on its page: name, tags, notes, and whether it is put away."""

from typing import Annotated, Any

from fastapi import APIRouter, Form, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from pydantic import ValidationError

from server.auth import CurrentUser
from server.db.tables import Run
from server.errors import NotCurrentError, field_problems
from server.pages.markdown import render_markdown
from server.pages.templating import render
from server.services import annotations, runs
from server.services.annotations import RunChange

router = APIRouter(prefix="/runs/{run_id}")


def about(run: Run) -> dict[str, Any]:
    """What the region of notes and tags shows."""
    return {"run": run, "notes_html": render_markdown(run.notes), "version": annotations.etag(run)}


@router.post("/about")
def change(
    request: Request,
    user: CurrentUser,
    run_id: str,
    version: Annotated[str, Form(max_length=100)],
    name: Annotated[str, Form()] = "",
    tags: Annotated[str, Form()] = "",
    notes: Annotated[str, Form()] = "",
) -> Response:
    """Change name, tags and notes. What is refused comes back with what was typed."""
    try:
        asked = RunChange(name=name, tags=tags.replace(",", " ").split(), notes=notes)
        with request.app.state.db.write() as session:
            annotations.annotate(session, run_id, asked, actor=user.name, if_match=version)
    except (ValidationError, NotCurrentError) as error:
        return _refused(request, user, run_id, error, {"name": name, "tags": tags, "notes": notes})
    return RedirectResponse(f"/runs/{run_id}", status_code=303)


@router.post("/archive")
def archive(request: Request, user: CurrentUser, run_id: str) -> Response:
    """Hide the run from lists."""
    return _set_archived(request, user, run_id, archived=True)


@router.post("/restore")
def restore(request: Request, user: CurrentUser, run_id: str) -> Response:
    """Show it in lists again."""
    return _set_archived(request, user, run_id, archived=False)


def _set_archived(request: Request, user: CurrentUser, run_id: str, *, archived: bool) -> Response:
    with request.app.state.db.write() as session:
        annotations.archive_run(session, run_id, archived=archived, actor=user.name)
    return RedirectResponse(f"/runs/{run_id}", status_code=303)


def _refused(
    request: Request, user: CurrentUser, run_id: str, error: ValidationError | NotCurrentError, typed: dict[str, str]
) -> HTMLResponse:
    with request.app.state.db.read() as session:
        run = runs.get_run(session, run_id)
    if isinstance(error, NotCurrentError):
        problem = "Somebody has changed the run meanwhile. Compare your words with theirs below, then save again."
    else:
        problem = "; ".join(
            f"{each.loc[0] if each.loc else 'run'}: {each.msg}" for each in field_problems(error.errors())
        )
    context = about(run) | {"nav": "runs", "typed": typed, "problem": problem}
    return render(request, "run/about_refused.html", context, user=user, status=422)
