"""The plan beside the launch form: `/runs/plan`."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import HTMLResponse
from pydantic import ValidationError

from server.auth import CurrentUser
from server.errors import InvalidError, NotFoundError
from server.pages import forms, sweep_form, tabs
from server.pages.launch import errors_of, form_again, pairs_of, write_tab
from server.pages.origins import origin_left
from server.pages.sweep_form import Errors, SweepForm
from server.pages.templating import is_partial, render
from server.planning import Fix, Need, Warned
from server.services import forks, plans, sweeps
from server.services.notation import NotationError
from server.services.requests import RunRequest
from server.services.sweep_plans import SweepPlan, plan_runs
from server.services.sweep_spec import label
from server.settings import Settings
from sparsify_core.config import FieldSpec

router = APIRouter()


@dataclass(frozen=True)
class Slice:
    """A part of the memory in a bar; x and width in percent of it."""

    need: Need
    x: float
    width: float


@dataclass(frozen=True)
class WarningView:
    """`fixes`: what a button says, and what it types: JSON, by name of the control."""

    warned: Warned
    fixes: list[tuple[str, str]]


@dataclass(frozen=True)
class PlanView:
    """A plan as the rail draws it. `plan` is None while fields are wrong, which `errors` says of."""

    plan: plans.Plan | None
    errors: Sequence[tuple[str, str, str]] = ()
    """Of each field: the id of its control, its name, what is wrong; the first two empty where it is about none."""
    reads: str = ""
    """The model, with its revision, whose shape is to be read."""
    sweep: SweepPlan | None = None
    """Of a sweep; `plan` is then that of its largest run."""

    @property
    def warnings(self) -> list[WarningView]:
        known = forms.specs()
        return [
            WarningView(warned, [(fix.label, _typing(known, fix)) for fix in warned.fixes])
            for warned in (self.plan.warnings if self.plan else ())
        ]

    @property
    def of_largest(self) -> str:
        """What tells the run of a sweep that the plan is of from the others."""
        return label(self.sweep.largest.values) if self.sweep else ""

    @property
    def on_gpu(self) -> bool:
        return self.plan is not None and self.plan.target.device.is_gpu

    @property
    def slices(self) -> list[Slice]:
        """The memory's parts that can be seen."""
        needs = self.plan.forecast.needs if self.plan and self.plan.forecast else []
        total = sum(need.num_bytes for need in needs)
        found, x = [], 0.0
        for need in needs:
            width = 100 * need.num_bytes / total
            found.append(Slice(need, x, width))
            x += width
        return found


@router.post("/runs/plan")
async def plan(request: Request, user: CurrentUser) -> HTMLResponse:
    """The rail; without a script the whole form again, with a fix applied where one was pressed."""
    return await run_in_threadpool(_plan, request, user, await pairs_of(request))


@router.post("/runs/plan/shape")
async def read_shape(request: Request, user: CurrentUser) -> Response:
    """Read the shape of the model, which may take a minute, and have the rail plan what is typed by then."""
    await run_in_threadpool(_read_shape, request.app.state.settings, await pairs_of(request))
    return Response(status_code=204, headers={"HX-Trigger": "shape-read"})


def _read_shape(settings: Settings, pairs: list[tuple[str, str]]) -> None:
    try:
        wanted = RunRequest.model_validate(forms.parse(tabs.read(pairs)[0])[1])
    except (NotationError, ValidationError):  # the rail says so
        return
    plans.shape_for(settings, wanted.config, waits=True)


def _plan(request: Request, user: Any, pairs: list[tuple[str, str]]) -> HTMLResponse:
    fix, tab = dict(pairs).get("fix", ""), tabs.shown(pairs)
    try:
        pairs = [*tabs.read(pairs)[0], *_fixed(fix)]
    except NotationError as error:
        view = PlanView(None, [("text", f"Line {p.line}" if p.line else "", p.message) for p in error.problems])
    else:
        view = _view(request, pairs, waits=not is_partial(request))
        tab = _written(request, tab.name, pairs) if fix else tab
    if is_partial(request):
        return render(request, "runs/_plan_body.html", {"view": view}, user=user)
    return form_again(request, user, pairs, [], status=200, plan_view=view, tab=tab)


def _written(request: Request, name: str, pairs: list[tuple[str, str]]) -> tabs.Tab:
    """The tab `name` with what a fix changed; the fields where that is no run yet."""
    try:
        return write_tab(request, name, pairs)
    except (ValidationError, InvalidError):
        return tabs.Tab()


def _view(request: Request, pairs: Sequence[tuple[str, str]], *, waits: bool) -> PlanView:
    settings: Settings = request.app.state.settings
    body, sweep = forms.parse(pairs)[1], sweep_form.read(pairs)
    try:
        planned = sweeps.plan_sweep(sweep.request(body), settings) if sweep.is_used else []
        wanted = planned[0].request if planned else RunRequest.model_validate(body)
        shape, problem = plans.shape_for(settings, wanted.config, waits=waits)
        with request.app.state.db.read() as session:
            total = plan_runs(session, planned, settings) if planned else None
            shown = total.largest.request if total else wanted
            if shown.config.model != wanted.config.model:
                shape, problem = plans.shape_for(settings, shown.config, waits=False)
            found = plans.make_plan(
                session,
                shown,
                settings=settings,
                shape=shape,
                shape_problem=problem,
                first_step=_first_step(request, pairs, shown),
            )
    except (ValidationError, InvalidError, NotFoundError) as error:
        return PlanView(None, _told(sweep, errors_of(error)))
    is_known = shape is not None or problem
    return PlanView(found, reads="" if is_known else f"{shown.config.model}@{shown.config.revision or ''}", sweep=total)


def _first_step(request: Request, pairs: Sequence[tuple[str, str]], wanted: RunRequest) -> int:
    """The step behind which the run of the form trains: not 0 where it forks a checkpoint and goes on there."""
    origin = origin_left(request, [*pairs])
    if origin is None or origin.checkpoint is None:
        return 0
    return forks.first_step(origin.checkpoint, origin.run, wanted, settings=request.app.state.settings)


def _told(sweep: SweepForm, errors: Errors) -> list[tuple[str, str, str]]:
    beside, problems = forms.place_errors(sweep.others(errors))
    controls = {name: forms.Control(spec, name, "") for name, spec in forms.specs().items()}
    told = [(controls[name].id, controls[name].label, text) for name, text in beside.items()]
    told += [("sweep-field-1", "sweep", text) for text in sweep.refused(errors).problems]
    return told + [("", "", text) for text in problems]


def _fixed(text: str) -> list[tuple[str, str]]:
    """What a pressed fix types into fields; nothing where it is none of ours."""
    try:
        values = json.loads(text or "{}")
    except (ValueError, RecursionError):
        return []
    known = forms.specs()
    named = values.items() if isinstance(values, dict) else ()
    return [(name, forms.sent(forms.to_text(known[name], value))) for name, value in named if name in known]


def _typing(known: Mapping[str, FieldSpec], fix: Fix) -> str:
    return json.dumps({name: forms.to_text(known[name], value) for name, value in fix.values.items()})
