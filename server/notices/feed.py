"""What browsers are told: the same events as channels, on an event stream."""

import time
from collections.abc import Sequence

from sqlmodel import Session, col, func, select

from server.db.session import Database
from server.db.tables import Run, RunEvent
from server.notices.message import EVENTS, title_of
from server.services.metrics_feed import Change

_LATE_COMMITS = 100
"""So many events back it looks again: on PostgreSQL a lower id may be committed after a higher one."""
_MAX_AGE_S = 600.0
"""Who was away for longer reads the list of runs."""
_AT_ONCE = 20
"""Of more events the newest: nobody reads a thousand notices when a thousand runs are cancelled."""


class NoticeFeed:
    """Follows what people can be told of, of all runs, behind the event `after`; without one behind the newest.

    Its first change is no notice: it says behind which event it begins.
    """

    has_more = False
    is_active = False

    def __init__(self, database: Database, after: str = "") -> None:
        self._database = database
        with database.read() as session:
            newest = session.exec(select(func.max(RunEvent.id))).one() or 0
            self._seen_id = min(int(after), newest) if after.isdecimal() else newest
            self._told = {event_id for event_id, _, _ in self._recent(session) if event_id <= self._seen_id}
        self._begin: list[Change] = [Change("notice", {"id": self._seen_id}, str(self._seen_id))]

    def poll(self) -> list[Change]:
        """New events, oldest first."""
        with self._database.read() as session:
            new = [one for one in self._recent(session) if one[0] not in self._told]
        begin, self._begin = self._begin, []
        self._told |= {event_id for event_id, _, _ in new}
        self._seen_id = max([self._seen_id, *self._told])
        cursor = str(self._seen_id)
        return begin + [Change("notice", _notice(*one), cursor) for one in new[-_AT_ONCE:]]

    def _recent(self, session: Session) -> Sequence[tuple[int, RunEvent, str]]:
        """Ids, events and names of runs, oldest first."""
        recent = (
            select(RunEvent, Run.name)
            .join(Run, col(Run.id) == col(RunEvent.run_id))
            .where(col(RunEvent.id) > max(0, self._seen_id - _LATE_COMMITS), RunEvent.ts > time.time() - _MAX_AGE_S)
            .where(col(RunEvent.kind).in_(EVENTS))
        )
        found = session.exec(recent.order_by(col(RunEvent.id)))
        return [(event.id, event, name) for event, name in found if event.id is not None]


def _notice(event_id: int, event: RunEvent, name: str) -> dict[str, object]:
    title = title_of(name, event.kind)
    return {"id": event_id, "kind": event.kind, "run_id": event.run_id, "title": title, "text": event.detail}
