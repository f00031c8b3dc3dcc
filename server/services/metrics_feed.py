"""New points and states of runs since a cursor: of one run `attempt.seq`, everything up to event `seq` of `attempt`
has been seen; of several runs theirs, in the order in which they are followed, between commas.
"""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlmodel import Session, col, select

from server.db.series import Place, as_json
from server.db.tables import ACTIVE, Attempt, Run
from server.services.looks import Look, Looks

_CURSOR = re.compile(r"(\d{1,9})\.(\d{1,15})", re.ASCII)
_LOST = "lost"
"""A cursor that cannot be, so that the browser loads everything anew."""


class Change(NamedTuple):
    """One event for the browser; `cursor` is where the feed stands behind it, empty when it cannot be resumed."""

    name: str
    data: dict[str, Any]
    cursor: str = ""


class MetricsFeed:
    """Follows one run. `has_more` says that the next poll has something at once, `is_active` that soon it may."""

    def __init__(self, looks: Looks, run_id: str, after: str = "") -> None:
        self.run: Run | None = None
        """As the last poll found it."""
        self.has_more = False
        self.is_active = True
        self._looks = looks
        self._run_id = run_id
        self._after = after
        self._position: Place | None = None
        self._seen: tuple[Any, ...] = ()

    @property
    def cursor(self) -> str:
        """Where the feed stands; before the first poll where the browser does."""
        return ".".join(map(str, self._position)) if self._position else self._after

    def poll(self) -> list[Change]:
        """All changes since the last poll, oldest first."""
        look = self._looks.look(self._run_id)
        if look is None:
            return []
        self.run, status = look.run, look.status
        points = self._points(look) if self._start(look.newest) else None
        self.is_active = look.run.state in ACTIVE
        changes = [Change("resync", {"run_id": self._run_id}, self.cursor)] if points is None else []
        if points:
            changes.append(Change("metrics", {"run_id": self._run_id, "points": points}, self.cursor))
        if tuple(status.values()) != self._seen:
            self._seen = tuple(status.values())
            changes.append(Change("run", status | {"step": look.run.step}, self.cursor))
        return changes

    def _start(self, newest: Place) -> bool:
        """Place the feed. False when what the browser shows must be loaded anew: its cursor is not one of ours, or a
        newer attempt has taken points of an older one back.
        """
        asked = self._asked(newest) if self._position is None else self._position
        if asked is None or (asked[0] != newest[0] and asked[0] > 0):
            self._position, self.has_more = newest, False
            return False
        self._position = asked
        return True

    def _asked(self, newest: Place) -> Place | None:
        """Where the browser's cursor stands; the beginning when it has none, None when it cannot be."""
        match = _CURSOR.fullmatch(self._after or "0.0")
        asked = (int(match[1]), int(match[2])) if match else None
        return asked if asked is not None and asked <= newest else None

    def _points(self, look: Look) -> list[list[Any]] | None:
        """Points behind the position, which moves on; never a part of an event. None when the browser gets the series
        faster anew.
        """
        found = self._looks.replay(look, self._position or (0, 0))
        self._position = found.up_to if found else look.newest
        self.has_more = found is not None and found.has_more
        return found and [[key, point.step, as_json(point.value), point.ts] for key, point in found.points]


class OverlayFeed:
    """Follows several runs."""

    def __init__(self, looks: Looks, run_ids: Sequence[str], after: str = "") -> None:
        cursors = after.split(",") if after else [""] * len(run_ids)
        if len(cursors) != len(run_ids):
            cursors = [_LOST] * len(run_ids)
        self._feeds = [MetricsFeed(looks, *place) for place in zip(run_ids, cursors, strict=True)]

    @property
    def has_more(self) -> bool:
        return any(feed.has_more for feed in self._feeds)

    @property
    def is_active(self) -> bool:
        return any(feed.is_active for feed in self._feeds)

    def poll(self) -> list[Change]:
        """All changes since the last poll, of one run after the other."""
        changes = []
        for feed in self._feeds:
            found = feed.poll()
            cursor = ",".join(one.cursor for one in self._feeds)
            changes += [change._replace(cursor=cursor) for change in found]
        return changes


def overlay_cursor(session: Session, run_ids: Sequence[str]) -> str:
    """Where the feed of these runs stands: read it before their series."""
    started = select(Attempt.run_id, Attempt.attempt, Attempt.event_seq).where(Attempt.event_seq > 0)
    of_runs = started.where(col(Attempt.run_id).in_(run_ids)).order_by(col(Attempt.attempt))
    newest = {run_id: f"{attempt}.{seq}" for run_id, attempt, seq in session.exec(of_runs)}
    return ",".join(newest.get(run_id, "0.0") for run_id in run_ids)
