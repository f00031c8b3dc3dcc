"""The pages of sweeps: all of them, and one with its runs and what is best among them."""

from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse

from server.auth import CurrentUser
from server.numbers import metric, metric_form
from server.pages.scatter import Point, Scatter, scatter
from server.pages.templating import is_partial, render
from server.pages.views import RunView
from server.services import feeds, sweeps
from server.services.compare import MAX_RUNS
from server.services.headline import HEADLINE
from server.services.pareto import frontier
from server.services.sweep_spec import label
from server.services.sweeps import SweepRun, SweepView
from sparsify_core.metrics import METRICS

router = APIRouter()
PAGE_ROWS = 50
LOSSES = ("fvu", "delta_ce")
"""What is plotted against L0."""


@dataclass(frozen=True)
class Column:
    """A column of the table of runs; `name` is its word in addresses."""

    name: str
    title: str
    help: str
    is_number: bool = True
    is_field: bool = False
    """Whether the label of a run has its value too."""


@dataclass(frozen=True)
class Row:
    """A run as the table shows it."""

    view: RunView
    label: str
    cells: list[str]
    is_best: bool


@router.get("/sweeps")
def list_sweeps(request: Request, user: CurrentUser, before: Annotated[str, Query(max_length=26)] = "") -> HTMLResponse:
    """All sweeps, newest first."""
    with request.app.state.db.read() as session:
        found = sweeps.list_sweeps(session, limit=PAGE_ROWS + 1, before=before or None)
    context = {"nav": "sweeps", "sweeps": found[:PAGE_ROWS], "has_more": len(found) > PAGE_ROWS}
    return render(request, "sweeps/list.html", context, user=user)


@router.get("/sweeps/{sweep_id}")
def page(
    request: Request, user: CurrentUser, sweep_id: str, sort: Annotated[str, Query(max_length=100)] = ""
) -> HTMLResponse:
    """One sweep: what became of its runs, L0 against FVU and the loss increase, and a table of all."""
    with request.app.state.db.read() as session:
        cursor = feeds.list_cursor(session)
        view = sweeps.view_sweep(session, sweep_id)
    columns = _columns(view)
    chosen = sort if sort.removeprefix("-") in {column.name for column in columns} else ""
    context = {
        "nav": "sweeps",
        "cursor": cursor,
        "sweep": view,
        "progress": sum(RunView(one.run).fraction for one in view.runs) / len(view.runs),
        "plots": [(METRICS[HEADLINE[loss][0]], plot) for loss in LOSSES if (plot := _plot(view, loss))],
        "columns": columns,
        "rows": _rows(view, columns, chosen),
        "sort": chosen,
        "compare": _compare(view),
    }
    return render(request, "sweeps/_sweep.html" if is_partial(request) else "sweeps/page.html", context, user=user)


@router.post("/sweeps/{sweep_id}/cancel")
def cancel(request: Request, user: CurrentUser, sweep_id: str) -> Response:
    """End all of its runs that are not over."""
    with request.app.state.db.write() as session:
        sweeps.cancel_sweep(session, sweep_id, settings=request.app.state.settings, actor=user.name)
    return RedirectResponse(f"/sweeps/{sweep_id}", status_code=303)


def _compare(view: SweepView) -> str:
    """Address of the runs side by side, of many those that no other run beats; empty where there are no two."""
    numbers = [(one.numbers["l0"], one.numbers["fvu"]) for one in view.runs]
    chosen = range(len(view.runs)) if len(view.runs) <= MAX_RUNS else frontier(numbers)[:MAX_RUNS]
    ids = [view.runs[number].run.id for number in chosen]
    return "/compare?" + urlencode({"run": ids}, doseq=True) if len(ids) > 1 else ""


def _columns(view: SweepView) -> list[Column]:
    fields = [
        Column(
            name,
            name.rpartition(".")[2],
            f"The field {name}",
            is_number=all(isinstance(one.values.get(name), int | float) for one in view.runs),
            is_field=True,
        )
        for name in view.fields
    ]
    measured = [name for name in HEADLINE if any(one.numbers[name] is not None for one in view.runs)]
    known = {name: METRICS[HEADLINE[name][0]] for name in measured}
    return fields + [Column(name, one.label, one.help) for name, one in known.items()]


def _plot(view: SweepView, loss: str) -> Scatter | None:
    return scatter(
        [
            Point(x, y, f"{label(one.values)}: L0 {metric(x)}, {metric(y, 'ratio')}", f"/runs/{one.run.id}")
            for one in view.runs
            if (x := one.numbers["l0"]) is not None and (y := one.numbers[loss]) is not None
        ]
    )


def _rows(view: SweepView, columns: list[Column], sort: str) -> list[Row]:
    best = set(frontier([(one.numbers["l0"], one.numbers["fvu"]) for one in view.runs]))
    rows = [
        (one, Row(RunView(one.run), label(one.values), [_cell(one, column) for column in columns], number in best))
        for number, one in enumerate(view.runs)
    ]
    if sort:
        name = sort.removeprefix("-")
        rows.sort(key=lambda pair: _order(pair[0], name), reverse=sort.startswith("-"))
        rows.sort(key=lambda pair: _value(pair[0], name) is None)  # what is not measured yet comes last
    return [row for _, row in rows]


def _value(one: SweepRun, name: str) -> Any:
    return one.values.get(name) if name in one.values else one.numbers[name]


def _order(one: SweepRun, name: str) -> tuple[float, str]:
    """Numbers before texts."""
    value = _value(one, name)
    return (float(value), "") if isinstance(value, int | float) else (float("inf"), str(value))


def _cell(one: SweepRun, column: Column) -> str:
    if column.name in one.values:
        return label({column.name: one.values[column.name]}).partition("=")[2]
    known = METRICS[HEADLINE[column.name][0]]
    return metric(one.numbers[column.name], metric_form(known.name, known.unit))
