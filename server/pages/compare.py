"""Several runs side by side: `/compare?run=…&run=…`."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from fastapi.responses import HTMLResponse

from server.auth import CurrentUser
from server.db.tables import Run
from server.pages.compare_state import CompareState, read_compare_state
from server.pages.curves import MARK_KINDS, curves_of
from server.pages.formatting import metric, metric_form, plain
from server.pages.scatter import Point, Scatter, scatter
from server.pages.templating import render
from server.pages.views import ChartSpec, RunView, chart_specs
from server.services import compare
from sparsify_core.metrics import split_key

router = APIRouter()


@dataclass(frozen=True)
class Column:
    """A run in the tables; `number` is its own in charts and on the board too, whatever the tables are ordered by."""

    number: int
    view: RunView


@router.get("/compare")
def page(
    request: Request, user: CurrentUser, here: Annotated[CompareState, Depends(read_compare_state)]
) -> HTMLResponse:
    """Configuration, metrics and Pareto board of the runs; everything that is chosen stands in the address."""
    with request.app.state.db.read() as session:
        found = compare.find_runs(session, here.run)
        curves = curves_of(session, found)
    rows = compare.measured(found)
    order = compare.ordered(found, rows, here.sort)
    differences = compare.config_differences(found)
    shown = [each for each in differences if here.fields == "all" or each.differs]
    context = {
        "nav": "runs",
        "here": here,
        "columns": [Column(place + 1, RunView(found[place])) for place in order],
        "axes": compare.OBJECTIVES,
        "curves": [asdict(curve) for curve in curves],
        "mark_kinds": [kind for kind in MARK_KINDS if any(kind in curve.kinds for curve in curves)],
        "charts": _charts(found),
        "board": _board(found, here.across, here.up),
        "config_rows": [(each.field, [plain(each.values[place]) for place in order], each.differs) for each in shown],
        "metric_rows": [(row.metric, [_cell(row, place) for place in order]) for row in rows],
    }
    return render(request, "compare.html", context, user=user)


def _cell(row: compare.Measured, place: int) -> tuple[str, bool]:
    """A run's value of a metric, and whether it is the best."""
    form = metric_form(row.metric.name, row.metric.unit)
    return metric(row.values[place], form), place in row.best


def _charts(runs: Sequence[Run]) -> list[ChartSpec]:
    """Charts of metrics that at least one of the runs has."""
    there = {split_key(key)[0] for run in runs for key in run.latest}
    return [chart for chart in chart_specs() if there.intersection(chart.metrics)]


def _board(runs: Sequence[Run], across: str, up: str) -> Scatter | None:
    """Runs by two objectives; None when no run has both values."""
    points = []
    for number, run in enumerate(runs, 1):
        values = compare.objectives(run)
        x, y = values[across], values[up]
        if x is not None and y is not None:
            words = f"{number} {run.name}: {across} {metric(x)}, {up} {metric(y)}"
            points.append(Point(x, y, words, f"/runs/{run.id}", mark=str(number)))
    return scatter(points)
