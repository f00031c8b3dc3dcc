"""Sparklines of the list: drawn once per step of a run, however often the list is asked for."""

from sqlmodel import Session

from server.db.tables import Run
from server.pages.svg import sparkline
from server.services import metrics

_MOST = 4000


class Sparks:
    """A cache of one process. Threads may draw a line twice, which does no harm."""

    def __init__(self) -> None:
        self._drawn: dict[str, tuple[tuple[int, int], str]] = {}

    def of(self, session: Session, run: Run) -> str:
        """The `points` of a run's SVG polyline; empty when it has too few."""
        place = (run.attempt, run.step)
        known = self._drawn.get(run.id)
        if known is not None and known[0] == place:
            return known[1]
        points = sparkline(metrics.spark(session, run.id)) if run.step else ""
        if len(self._drawn) >= _MOST:
            self._drawn.clear()
        self._drawn[run.id] = (place, points)
        return points
