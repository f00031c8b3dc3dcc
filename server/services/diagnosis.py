"""Whether a run trains well, from its row and a few of its series. `health` is about the deployment."""

import math

from sqlmodel import Session

from server.db.tables import Run
from server.diagnosis import SERIES, Evidence, Line, Result, diagnose
from server.services import metrics
from sparsify_core.metrics import split_key

MAX_POINTS = 400
"""Of each series: enough for its course."""


def diagnose_run(session: Session, run: Run) -> list[Result]:
    """All checks of a run; one read of the series."""
    keys = [key for key in run.latest if split_key(key)[0] in SERIES]
    found = metrics.series(session, run.id, keys, max_points=MAX_POINTS) if keys else {}
    lines = {key: _line(one) for key, one in found.items()}
    latest = {key: float(value) for key, value in run.latest.items()}
    return diagnose(Evidence(run.config, lines, latest, reason_code=run.reason_code, step=run.step))


def _line(one: metrics.Series) -> Line:
    highest = [math.nan if value is None else value for value in one["max"] or ()]
    return Line(one["steps"], [float(value) for value in one["values"]], one["ts"], highest)
