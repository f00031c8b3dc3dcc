"""The launch form: `/runs/new`."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import HTMLResponse, RedirectResponse
from pydantic import ValidationError
from starlette.datastructures import FormData

from server.auth import CurrentUser
from server.db.tables import Run
from server.errors import InvalidError
from server.pages import forms
from server.pages.templating import render
from server.services import presets, runs
from server.services.requests import RunRequest, launch_values

router = APIRouter()
PRESETS = ("demo", "blank")


@router.get("/runs/new")
def new(
    request: Request,
    user: CurrentUser,
    preset: str = "",
    view: Literal["", "full"] = "",
    source: Annotated[str, Query(alias="from")] = "",
) -> HTMLResponse:
    """The form, filled in from a preset or an earlier run; parameters that are names of fields change them."""
    demo = presets.demo_config(request.app.state.settings)
    chosen = preset if preset in PRESETS else ("demo" if demo is not None else "blank")
    cloned: Run | None = None
    if source:
        with request.app.state.db.read() as session:
            cloned = runs.get_run(session, source)
        before = forms.values_of(cloned.config, **launch_values(cloned) | {"name": f"{cloned.name} copy"})
        chosen = ""
    elif chosen == "demo" and demo is not None:
        before = forms.values_of(demo)
    else:
        before = forms.values_of({})
    values = before | forms.parse(request.query_params.multi_items())[0]
    context = {
        "form": forms.build(values),
        "changes": forms.changes(before, values),
        "preset": chosen,
        "source": cloned,
        "has_demo": demo is not None,
        "full": view == "full",
    }
    return render(request, "runs/new.html", {"nav": "new"} | context, user=user)


@router.post("/runs/new")
async def create(request: Request, user: CurrentUser) -> Response:
    """Queue the run, or show the form again with the errors beside the fields and everything that was typed."""
    form: FormData = await request.form()
    pairs = [(name, value) for name, value in form.multi_items() if isinstance(value, str)]
    return await run_in_threadpool(_create, request, user, pairs)


def _create(request: Request, user: Any, pairs: list[tuple[str, str]]) -> Response:
    source = dict(pairs).get("cloned_from")
    typed, body = forms.parse(pairs)
    with request.app.state.db.read() as session:
        cloned = runs.get_run(session, source) if source else None
    origin = {"cloned_from": cloned.id, "detail": f"a copy of {cloned.id}"} if cloned else {}
    try:
        wanted = RunRequest.model_validate(body)
        with request.app.state.db.write() as session:
            run = runs.create_run(session, wanted, settings=request.app.state.settings, actor=user.name, **origin)
    except ValidationError as error:
        return _refused(request, user, typed, cloned, [(e["loc"], e["msg"]) for e in error.errors()])
    except InvalidError as error:
        return _refused(request, user, typed, cloned, [(p.loc, p.msg) for p in error.errors] or [((), error.detail)])
    return RedirectResponse(f"/runs/{run.id}", status_code=303)


def _refused(
    request: Request,
    user: Any,
    typed: dict[str, Any],
    cloned: Run | None,
    errors: list[tuple[tuple[Any, ...], str]],
) -> HTMLResponse:
    beside, problems = forms.place_errors(errors)
    context = {
        "nav": "new",
        "form": forms.build(typed, beside, problems),
        "preset": "",
        "source": cloned,
        "has_demo": presets.demo_config(request.app.state.settings) is not None,
    }
    return render(request, "runs/new.html", context, user=user, status=422)
