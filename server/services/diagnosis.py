"""Whether a run trains well, from its row and a few of its series. `health` is about the deployment."""

import math
import threading
from collections import OrderedDict
from typing import Any

from sqlmodel import Session

from server.db.tables import Run
from server.diagnosis import SERIES, Evidence, Line, Result, diagnose
from server.services import metrics
from sparsify_core.metrics import split_key

MAX_POINTS = 400
"""Of each series: enough for its course."""
_KEPT = 256


class Diagnoses:
    """What the checks said of runs lately. Every page of a run asks, again and again; their series are read once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, tuple[tuple[Any, ...], list[Result]]] = OrderedDict()

    def of(self, session: Session, run: Run) -> list[Result]:
        """All checks of a run; the same as before while nothing has come since."""
        evident = (metrics.position(session, run.id), run.latest, run.step, run.reason_code)
        with self._lock:
            then, results = self._kept.get(run.id, ((), []))
        if then != evident:
            results = diagnose(_evidence(session, run))
        self._keep(run.id, evident, results)
        return results

    def _keep(self, run_id: str, evident: tuple[Any, ...], results: list[Result]) -> None:
        with self._lock:
            self._kept[run_id] = evident, results
            self._kept.move_to_end(run_id)
            if len(self._kept) > _KEPT:
                self._kept.popitem(last=False)


def _evidence(session: Session, run: Run) -> Evidence:
    keys = [key for key in run.latest if split_key(key)[0] in SERIES]
    found = metrics.series(session, run.id, keys, max_points=MAX_POINTS) if keys else {}
    lines = {key: _line(one) for key, one in found.items()}
    latest = {key: float(value) for key, value in run.latest.items()}
    return Evidence(run.config, lines, latest, reason_code=run.reason_code, step=run.step)


def _line(one: metrics.Series) -> Line:
    highest = [math.nan if value is None else value for value in one["max"] or ()]
    return Line(one["steps"], [float(value) for value in one["values"]], one["ts"], highest)
