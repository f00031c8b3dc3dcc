"""Several runs side by side: `/compare?run=…&run=…`."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from fastapi.responses import HTMLResponse

from server.auth import CurrentUser
from server.db.tables import TERMINAL, Run
from server.numbers import metric, metric_form
from server.pages.compare_state import CompareState, read_compare_state
from server.pages.curves import curves_of, mark_kinds
from server.pages.formatting import plain
from server.pages.scatter import Point, Scatter, scatter
from server.pages.templating import is_partial, render
from server.pages.views import RunView, chart_specs
from server.services import compare
from server.services.metrics_feed import overlay_cursor
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
    """Charts, configuration, metrics and Pareto board of the runs; everything that is chosen stands in the address."""
    with request.app.state.db.read() as session:
        found = compare.find_runs(session, here.run)
        followed = [run.id for run in found if run.state not in TERMINAL]
        cursor = overlay_cursor(session, followed)
        curves = curves_of(session, found)
    rows = compare.measured(found)
    order = compare.ordered(found, rows, here.sort)
    differences = compare.config_differences(found)
    shown = [each for each in differences if here.fields == "all" or each.differs]
    there = {split_key(key)[0] for run in found for key in run.latest}
    context = {
        "nav": "runs",
        "here": here,
        "topics": ",".join(f"metrics:{run_id}" for run_id in followed),
        "cursor": cursor,
        "views": [RunView(run) for run in found],
        "columns": [Column(place + 1, RunView(found[place])) for place in order],
        "axes": compare.OBJECTIVES,
        "curves": [asdict(curve) for curve in curves],
        "mark_kinds": mark_kinds(curves, are_live=bool(followed)),
        "charts": [chart for chart in chart_specs() if followed or there.intersection(chart.metrics)],
        "has_values": lambda chart: bool(there.intersection(chart.metrics)),
        "board": _board(found, here.across, here.up),
        "config_rows": [(each.field, [plain(each.values[place]) for place in order], each.differs) for each in shown],
        "metric_rows": [(row.metric, [_cell(row, place) for place in order]) for row in rows],
    }
    return render(request, "compare/_answer.html" if is_partial(request) else "compare/page.html", context, user=user)


def _cell(row: compare.Measured, place: int) -> tuple[str, bool]:
    """A run's value of a metric, and whether it is the best."""
    form = metric_form(row.metric.name, row.metric.unit)
    return metric(row.values[place], form), place in row.best


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
