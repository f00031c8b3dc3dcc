"""The page of one run, and its regions that are refetched live."""

from typing import Annotated, Any, Literal
from urllib.parse import urlencode

from fastapi import APIRouter, Form, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from sqlmodel import Session

from server.auth import CurrentUser
from server.db.tables import Sweep
from server.numbers import metric, metric_form
from server.pages.actions import legal_actions
from server.pages.advice import advice
from server.pages.annotations import about
from server.pages.health import health_of
from server.pages.lineage import family_of, in_words
from server.pages.prediction import predicted_rows
from server.pages.templating import is_partial, render
from server.pages.views import ChartSpec, RunView, chart_specs, config_groups
from server.pages.waterfall import FIRST_STEP, waterfall
from server.pages.worker import system_of
from server.services import checkpoints, control, forecasts, lineage, logs, marks, metrics, runs, timings, workers
from server.services.looks import status_of
from sparsify_core.config import RunConfig
from sparsify_core.metrics import METRICS, split_key

router = APIRouter()
REQUESTS = {
    "cancel": control.cancel_run,
    "pause": control.pause_run,
    "resume": control.resume_run,
    "requeue": control.requeue_run,
}
FIRST_KEYS = 8
"""Series of the first chart that are asked for beforehand."""
LOG_LINES = 15
"""Last lines of a failed run's log beside its reason; all of it stands further below."""


@router.get("/runs/{run_id}")
def page(request: Request, user: CurrentUser, run_id: str, attempt: str = "", node: str = "") -> HTMLResponse:
    """Everything about one run. Cursor and status are from before the rest: what comes later, the stream brings.

    Args:
        attempt, node: whose log is shown; the newest attempt's on the first node where there is no such.
    """
    with request.app.state.db.read() as session:
        cursor, status = metrics.cursor(session, run_id), status_of(session, runs.get_run(session, run_id))
        context = _head(session, run_id) | _lists(session, run_id) | _timings(session, run_id)
        view: RunView = context["view"]
        context |= health_of(session, request.app.state.diagnoses, view.run) | system_of(session, view.run)
        context["family"] = family_of(session, view.run)
    charts = chart_specs()
    log_node = _number(node, range(1, view.run.num_nodes)) or 0
    log_attempt = _number(attempt, range(1, view.run.attempt))
    context |= {
        "nav": "runs",
        "about": about(view.run),
        "cursor": cursor,
        "status": status,
        "charts": charts,
        "first_series": _first_series(view, charts[0]),
        "chart_rows": lambda chart: _latest_rows(view, chart),
        "config_groups": config_groups(view.config),
        "log": logs.tail(request.app.state.settings, view.run, attempt=log_attempt, node=log_node),
        "log_node": log_node,
        "launcher": logs.LAUNCHER.pattern,
    }
    return render(request, "run/page.html", context, user=user)


@router.get("/runs/{run_id}/head")
def head(request: Request, user: CurrentUser, run_id: str) -> HTMLResponse:
    """Title, state, progress and newest values."""
    with request.app.state.db.read() as session:
        return render(request, "run/_head.html", _head(session, run_id), user=user)


@router.get("/runs/{run_id}/lists")
def lists(request: Request, user: CurrentUser, run_id: str) -> HTMLResponse:
    """Checkpoints, history, and what the charts mark on their axis."""
    with request.app.state.db.read() as session:
        return render(request, "run/_lists.html", _lists(session, run_id), user=user)


@router.get("/runs/{run_id}/waterfall")
def time_of_steps(request: Request, user: CurrentUser, run_id: str) -> HTMLResponse:
    """Where the time of the measured steps goes."""
    with request.app.state.db.read() as session:
        return render(request, "run/_waterfall.html", _timings(session, run_id), user=user)


@router.post("/runs/{run_id}/retry")
def retry(request: Request, user: CurrentUser, run_id: str) -> Response:
    """Go on from the run's newest checkpoint in a new run; asked twice, it is the same new run."""
    with request.app.state.db.write() as session:
        successor = control.retry_run(session, run_id, settings=request.app.state.settings, actor=user.name)
    return RedirectResponse(f"/runs/{successor.id}", status_code=303)


@router.post("/runs/{run_id}/{action}")
def act(
    request: Request,
    user: CurrentUser,
    run_id: str,
    action: Literal["cancel", "pause", "resume", "requeue"],
    back: Annotated[str, Form()] = "",
) -> Response:
    """Ask something of the run, and show the state that it really is in, on the page where it was asked."""
    with request.app.state.db.write() as session:
        REQUESTS[action](session, run_id, settings=request.app.state.settings, actor=user.name)
    here = f"/runs/{run_id}/head" if is_partial(request) else f"/runs/{run_id}"
    return RedirectResponse("/queue" if back == "queue" else here, status_code=303)


def _number(text: str, known: range) -> int | None:
    """A number of an address, if it is one of those."""
    return next((number for number in known if str(number) == text), None)


def _head(session: Session, run_id: str) -> dict[str, Any]:
    run = runs.get_run(session, run_id)
    successor = runs.successor_of(session, run_id)
    return {
        "view": RunView(run),
        "actions": legal_actions(run, has_successor=successor is not None),
        "successor": successor,
        "origin": (origin := lineage.parent(session, run)),
        "how": lineage.how_made(run),
        "differs": in_words(lineage.changes(origin, run)) if origin else [],
        "sweep": session.get(Sweep, run.sweep_id) if run.sweep_id else None,
        "advice": advice(run),
        "log_end": logs.training_lines(run.log_tail)[-LOG_LINES:],
        "num_workers": workers.count_alive(session),
    }


def _lists(session: Session, run_id: str) -> dict[str, Any]:
    run = runs.get_run(session, run_id)
    rows = checkpoints.list_checkpoints(session, run_id)
    prediction = forecasts.prediction_of(session, run_id)
    return {
        "prediction": prediction,
        "predicted": predicted_rows(prediction),
        "view": RunView(run),
        "checkpoints": [{"row": row, "fvu": evaluated_fvu(row.evaluation)} for row in rows],
        "history": runs.history(session, run_id),
        "axis": {
            "origin": marks.origins(session, [run_id])[run_id],
            "marks": [mark._asdict() for mark in marks.marks(session, [run_id])[run_id]],
        },
    }


def _timings(session: Session, run_id: str) -> dict[str, Any]:
    view = RunView(runs.get_run(session, run_id))
    return {
        "view": view,
        "waterfall": waterfall(timings.newest(session, run_id)),
        "waterfall_every": view.config.get("waterfall_every", RunConfig.model_fields["waterfall_every"].default),
        "first_measured": FIRST_STEP,
    }


def evaluated_fvu(evaluation: dict[str, Any]) -> str:
    """Mean held-out FVU over the coders of a checkpoint."""
    values = [v["eval_fvu"] for v in evaluation.values() if isinstance(v.get("eval_fvu"), int | float)]
    return metric(sum(values) / len(values), "ratio") if values else metric(None)


def _first_series(view: RunView, chart: ChartSpec) -> str:
    """The query for the series of the first chart, which a browser asks for before it has read the scripts."""
    keys = [key for key, _, _ in _latest_rows(view, chart)]
    return urlencode([*(("key", key) for key in keys[:FIRST_KEYS]), ("max_points", metrics.MAX_POINTS)]) if keys else ""


def _latest_rows(view: RunView, chart: ChartSpec) -> list[tuple[str, str, str]]:
    """`(key, name, newest value)` of a chart's series, for readers without JavaScript; the script takes the keys."""
    rows = []
    for key, value in view.run.latest.items():
        name, coder = split_key(key)
        if name in chart.metrics:
            label = METRICS[name].label if name in METRICS else name
            shown = metric(value, metric_form(name, METRICS[name].unit))
            rows.append((key, f"{label}, {coder}" if coder else label, shown))
    return rows
