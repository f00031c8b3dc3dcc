"""The launch form: `/runs/new`."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Annotated, Any, Literal
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import HTMLResponse, RedirectResponse
from pydantic import ValidationError
from starlette.datastructures import FormData

from server.auth import CurrentUser
from server.db.session import Database
from server.db.tables import Run
from server.errors import AppError, InvalidError, NotFoundError
from server.pages import forms, picker, sweep_form, tabs
from server.pages.origins import Origin, differences, find_origin, origin_left, origin_of
from server.pages.sweep_form import Errors
from server.pages.templating import is_partial, render
from server.services import forks, presets, runs, sweeps
from server.services.local_sources import known_sources
from server.services.notation import NotationError
from server.services.presets import PresetView
from server.services.requests import RunRequest
from server.services.sweep_spec import label
from server.settings import Settings

router = APIRouter()
BLANK = "blank"
_EITHER = "Enter may mean the run or its preset: press Queue run, or Save as a preset."
_GONE = "What this form was filled in from was deleted meanwhile: queued now, the run starts anew."


@router.get("/runs/new")
def new(
    request: Request,
    user: CurrentUser,
    preset: Annotated[str, Query(max_length=26)] = "",
    view: Literal["", "full"] = "",
    source: Annotated[str, Query(alias="from")] = "",
    fork: str = "",
    sweep: Annotated[str, Query(max_length=26)] = "",
) -> HTMLResponse:
    """The form, filled in from a preset, an earlier run or sweep, or the run of a checkpoint, which is forked;
    parameters that are names of fields change them."""
    with request.app.state.db.read() as session:
        offered = presets.list_presets(session, request.app.state.settings)
        origin = find_origin(session, source, fork)
        repeated = sweeps.get_sweep(session, sweep) if sweep else None
    chosen = None if origin or repeated else _chosen(offered, preset)
    asked = request.query_params.multi_items()
    rows = sweep_form.read(asked)
    if origin is not None:
        before = origin.values
    elif repeated is not None:
        base = repeated.spec["base"]
        before, rows = forms.values_of(**base | {"name": f"{repeated.name} copy"}), sweep_form.again(repeated.spec)
    else:
        before = _values_of(chosen)
    values = before | forms.parse(asked)[0]
    context = (
        _context(offered, "" if origin or repeated else (chosen.id if chosen else BLANK))
        | _aids(request, values)
        | differences(origin, before, values)
        | {"form": forms.build(values), "sweep": rows, "repeated": repeated, "full": view == "full"}
    )
    return render(request, "runs/new.html", context, user=user)


def _chosen(offered: list[PresetView], wanted: str) -> PresetView | None:
    """The preset that is asked for, or else the demo where there is one."""
    by_id = {one.id: one for one in offered}
    return None if wanted == BLANK else by_id.get(wanted) or by_id.get(presets.DEMO)


def _values_of(chosen: PresetView | None) -> dict[str, Any]:
    """The form values of a preset, or of none."""
    return forms.values_of(chosen.config, **chosen.launch) if chosen else forms.values_of({})


def _context(offered: list[PresetView], preset: str) -> dict[str, Any]:
    """What the form needs besides the values of its fields.

    Args:
        preset: id of the preset that it was filled in from, or blank.
    """
    return {
        "nav": "new",
        "presets": offered,
        "preset": preset,
        "description": next((one.description for one in offered if one.id == preset), ""),
        "sweep_choices": sweep_form.choices(),
        "save_preset": preset_of(()),
    }


def preset_of(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """What was typed about a preset to be saved."""
    typed = dict(pairs)
    return {name: typed.get(f"preset.{name}", "") for name in ("name", "description")}


@router.get("/presets")
@router.get("/runs/plan")
@router.get("/runs/new/{part}")
def anew() -> Response:
    """Forms are sent to these addresses, which stay in the address bar; who opens them again gets the form."""
    return RedirectResponse("/runs/new")


def address_of(request: Request, pairs: list[tuple[str, str]]) -> str:
    """Where the form stands as it was typed: what it was filled in from, the fields that differ, and the sweep."""
    typed, origin = dict(pairs), origin_left(request, pairs)
    with request.app.state.db.read() as session:
        offered = presets.list_presets(session, request.app.state.settings)
    preset = typed.get("preset", BLANK)
    before = origin.values if origin else _values_of(_chosen(offered, preset))
    own = {"fork": typed.get("fork"), "from": typed.get("cloned_from")} if origin else {"preset": preset}
    values = forms.parse(pairs)[0]
    fields = [(name, forms.sent(value)) for name, value in values.items() if value != before[name]]
    sweep = (
        [(name, text) for name, text in pairs if name.startswith("sweep.")] if sweep_form.read(pairs).is_used else []
    )
    return "/runs/new?" + urlencode([*((name, text) for name, text in own.items() if text), *fields, *sweep])


@router.post("/runs/new")
async def create(request: Request, user: CurrentUser) -> Response:
    """Queue the run, or the sweep, or show the form again with the errors and everything that was typed."""
    return await run_in_threadpool(_create, request, user, await pairs_of(request))


@router.post("/runs/new/sweep")
async def count(request: Request, user: CurrentUser) -> Response:
    """Say which runs the sweep of the form would make; htmx gets that alone, others the form with it."""
    return await run_in_threadpool(_count, request, user, await pairs_of(request))


@router.post("/runs/new/changes")
async def changed(request: Request, user: CurrentUser) -> Response:
    """What the form changes of the run that it was filled in from, while somebody types."""
    return await run_in_threadpool(_changed, request, user, await pairs_of(request))


async def pairs_of(request: Request) -> list[tuple[str, str]]:
    """The fields of a form, in its order."""
    form: FormData = await request.form()
    return [(name, value) for name, value in form.multi_items() if isinstance(value, str)]


def _create(request: Request, user: Any, pairs: list[tuple[str, str]]) -> Response:
    settings = request.app.state.settings
    typed = dict(pairs)
    if typed.get("by") == "enter" and typed.get("preset.name", "").strip():  # a browser does not say in which field
        return form_again(request, user, pairs, [((), _EITHER)], status=422)
    try:
        pairs, _ = tabs.read(pairs)
    except NotationError as error:
        return text_again(request, user, pairs, error)
    sweep, (_, body) = sweep_form.read(pairs), forms.parse(pairs)
    try:
        origin = origin_of(request, pairs)
        if sweep.is_used:
            many = sweep.request(body)
            with request.app.state.db.write() as session:
                where = f"/sweeps/{sweeps.create_sweep(session, many, settings=settings, actor=user.name).id}"
        else:
            wanted = RunRequest.model_validate(body)
            where = f"/runs/{_create_run(request.app.state.db, wanted, origin, settings=settings, actor=user.name).id}"
    except (ValidationError, InvalidError, NotFoundError) as error:
        return form_again(request, user, pairs, errors_of(error), status=422)
    return RedirectResponse(where, status_code=303)


def _create_run(
    database: Database, wanted: RunRequest, origin: Origin | None, *, settings: Settings, actor: str
) -> Run:
    if origin is not None and origin.checkpoint is not None:
        forked = origin.checkpoint.id
        with forks.kept_checkpoint(database, forked, settings=settings) as run_id, database.write() as session:
            return forks.fork_run(session, forked, run_id, wanted, settings=settings, actor=actor)
    copied = {"detail": f"a copy of {origin.run.id}", "cloned_from": origin.run.id} if origin else {}
    with database.write() as session:
        return runs.create_run(session, wanted, settings=settings, actor=actor, **copied)


def _count(request: Request, user: Any, pairs: list[tuple[str, str]]) -> Response:
    sweep, errors = sweep_form.read(pairs), Errors()
    try:
        if sweep.is_used:
            planned = sweeps.plan_sweep(sweep.request(forms.parse(pairs)[1]), request.app.state.settings)
            sweep = replace(sweep, names=[label(one.values) for one in planned])
    except (ValidationError, InvalidError) as error:
        errors = errors_of(error)
        sweep = sweep.refused(errors)
    if is_partial(request):
        return render(request, "runs/new/_sweep_outcome.html", {"sweep": sweep, "has_errors": bool(errors)}, user=user)
    return form_again(request, user, pairs, errors, status=422 if errors else 200, sweep=sweep)


def _changed(request: Request, user: Any, pairs: list[tuple[str, str]]) -> Response:
    origin = origin_of(request, pairs)
    if origin is None:
        raise NotFoundError("The form was not filled in from a run.")
    try:
        pairs, _ = tabs.read(pairs)
    except NotationError:  # what stands there stays until the text says something again
        return Response(status_code=204)
    before = origin.values
    context = differences(origin, before, before | forms.parse(pairs)[0])
    return render(request, "runs/new/_changes.html", context, user=user)


def write_tab(request: Request, name: str, pairs: list[tuple[str, str]]) -> tabs.Tab:
    """The tab `name` of what the form says. Raises pydantic's ValidationError for a form that is no run."""
    origin = origin_left(request, pairs)
    fork = (origin.checkpoint, origin.run) if origin and origin.checkpoint else None
    return tabs.write(name, pairs, url=str(request.base_url).rstrip("/"), fork=fork)


def errors_of(error: ValidationError | AppError) -> Errors:
    """Where they are, and what they say."""
    if isinstance(error, ValidationError):
        return [(one["loc"], one["msg"]) for one in error.errors()]
    return [(one.loc, one.msg) for one in error.errors] or [((), error.detail)]


def _aids(request: Request, values: dict[str, Any]) -> dict[str, Any]:
    """What helps to fill in the form: the model's modules, and the names of models and datasets that are known."""
    with request.app.state.db.read() as session:
        known = known_sources(session)
    return {"tab": tabs.Tab(), "picker": picker.build(request.app.state.settings, values), "known": known}


def text_again(request: Request, user: Any, pairs: list[tuple[str, str]], error: NotationError) -> HTMLResponse:
    """The tab as it was typed, with what is wrong with its text."""
    return form_again(request, user, pairs, [], status=422, tab=replace(tabs.shown(pairs), problems=error.problems))


def form_again(
    request: Request, user: Any, pairs: list[tuple[str, str]], errors: Errors, *, status: int, **more: Any
) -> HTMLResponse:
    """The form as it was typed, with what is wrong with it; also that what it was filled in from is gone.

    Args:
        more: what the template gets besides.
    """
    sweep, gone = sweep_form.read(pairs), []
    beside, problems = forms.place_errors(sweep.others(errors))
    with request.app.state.db.read() as session:
        offered = presets.list_presets(session, request.app.state.settings)
    typed = forms.parse(pairs)[0]
    try:
        origin = origin_of(request, pairs)
    except NotFoundError:
        origin, gone = None, [_GONE]
    changed = differences(origin, origin.values, origin.values | typed) if origin else {}
    context = (
        _context(offered, dict(pairs).get("preset", ""))
        | _aids(request, typed)
        | {"full": dict(pairs).get("view") == "full", "save_preset": preset_of(pairs)}
        | changed
        | {
            "form": forms.build(typed, beside, [*problems, *gone]),
            "sweep": sweep.refused(errors),
        }
    )
    return render(request, "runs/new.html", context | more, user=user, status=status)
