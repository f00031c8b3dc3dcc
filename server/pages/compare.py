"""Several runs side by side: `/compare?run=…&run=…`."""

from collections.abc import Sequence
from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse

from server.auth import CurrentUser
from server.db.tables import Run
from server.pages.formatting import metric, metric_form, plain
from server.pages.scatter import Point, Scatter, scatter
from server.pages.templating import render
from server.pages.views import ChartSpec, RunView, chart_specs
from server.services import compare
from sparsify_core.metrics import split_key

router = APIRouter()


@router.get("/compare")
def page(
    request: Request,
    user: CurrentUser,
    run: Annotated[list[str], Query(max_length=1000)] = [],  # noqa: B006 - FastAPI copies it
    across: str = "L0",
    up: str = "FVU",
    fields: str = "different",
) -> HTMLResponse:
    """Configuration, metrics and Pareto board of the runs; everything that is chosen stands in the address."""
    with request.app.state.db.read() as session:
        found = compare.find_runs(session, run)
    axes = across if across in compare.OBJECTIVES else "L0", up if up in compare.OBJECTIVES else "FVU"
    differences = compare.config_differences(found)
    shown = [each for each in differences if fields == "all" or each.differs]
    context = {
        "nav": "runs",
        "views": [RunView(each) for each in found],
        "axes": compare.OBJECTIVES,
        "across": axes[0],
        "up": axes[1],
        "lines": [
            {"id": each.id, "name": each.name, "tokensPerStep": each.tokens_per_step, "keys": sorted(each.latest)}
            for each in found
        ],
        "charts": _charts(found),
        "board": _board(found, *axes),
        "fields": fields,
        "toggle": urlencode([*(("run", each.id) for each in found), ("across", axes[0]), ("up", axes[1])]),
        "config_rows": [(each.field, [plain(value) for value in each.values], each.differs) for each in shown],
        "metric_rows": [
            (
                row.metric,
                [metric(value, metric_form(row.metric.name, row.metric.unit)) for value in row.values],
                row.best,
            )
            for row in compare.measured(found)
        ],
    }
    return render(request, "compare.html", context, user=user)


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
