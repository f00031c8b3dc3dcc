"""What changed since a cursor: the events of one run, and of the list of runs. The database and the log are the source.

A run's cursor is `attempt.seq.log attempt.log offset`: everything up to event `seq` of `attempt` and up to that byte of
the log has been seen. The last two may be missing; the feed then begins at the log's present end.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from pydantic_core import to_json
from sqlalchemy import Select, bindparam, union
from sqlalchemy import select as core_select
from sqlmodel import Session, col

from server.db.series import as_json
from server.db.session import Database
from server.db.tables import ACTIVE, WAITING, Run
from server.services import logs
from server.services.looks import Look, Looks
from server.settings import Settings

LISTED_RUNS = 200
_CURSOR = re.compile(r"(\d{1,9})\.(\d{1,15})(?:\.(\d{1,9})\.(\d{1,15}))?", re.ASCII)


class Change(NamedTuple):
    """One event for the browser; `cursor` is where the feed stands behind it, empty when it cannot be resumed."""

    name: str
    data: dict[str, Any]
    cursor: str = ""


@dataclass
class RunFeed:
    """Follows one run. `has_more` says that the next poll has something at once, `is_active` that soon it may."""

    settings: Settings
    looks: Looks
    run_id: str
    after: str = ""
    has_more: bool = False
    is_active: bool = True
    _position: tuple[int, int] | None = None
    _log: tuple[int, int] | None = None
    _seen: tuple[Any, ...] = ()

    def poll(self) -> list[Change]:
        """All changes since the last poll, oldest first."""
        look = self.looks.look(self.run_id)
        if look is None:
            return []
        run, status = look.run, look.status
        points = self._points(look) if self._start(run, look.newest) else None
        self.is_active = run.state in ACTIVE
        changes = [Change("resync", {"run_id": self.run_id})] if points is None else []
        if points:
            changes.append(Change("metrics", {"run_id": self.run_id, "points": points}, self._cursor()))
        changes += self._log_changes(run)
        if tuple(status.values()) != self._seen:
            self._seen = tuple(status.values())
            changes.append(Change("run", status | {"step": run.step}))
        return [change._replace(cursor=change.cursor or self._cursor()) for change in changes]

    def _start(self, run: Run, newest: tuple[int, int]) -> bool:
        """Place the feed. False when what the browser shows must be loaded anew: its cursor is not one of ours, or a
        newer attempt has taken points of an older one back.
        """
        asked = self._asked(run, newest) if self._position is None else self._position
        if asked is None or (asked[0] != newest[0] and asked[0] > 0):
            self._position, self.has_more = newest, False
            return False
        self._position = asked
        return True

    def _asked(self, run: Run, newest: tuple[int, int]) -> tuple[int, int] | None:
        """Where the browser's cursor stands; the beginning when it has none, None when it cannot be."""
        match = _CURSOR.fullmatch(self.after or "0.0")
        if match is None:
            return None
        attempt, seq, log_attempt, log_offset = (int(number or 0) for number in match.groups())
        if match[3] and log_attempt <= run.attempt:
            self._log = (log_attempt, log_offset)
        return (attempt, seq) if (attempt, seq) <= newest else None

    def _points(self, look: Look) -> list[list[Any]] | None:
        """Points behind the position, which moves on; never a part of an event. None when the browser gets the series
        faster anew.
        """
        found = self.looks.replay(look, self._position or (0, 0))
        self._position = found.up_to if found else look.newest
        self.has_more = found is not None and found.has_more
        return found and [[key, point.step, as_json(point.value), point.ts] for key, point in found.points]

    def _log_changes(self, run: Run) -> list[Change]:
        """New lines of the log. A feed without a place in it says where the end is, so that the browser sees a gap."""
        if self._log is None:
            chunk = logs.tail(self.settings, run)
            self._log = (chunk.attempt, chunk.next_offset)
            return [self._log_change(logs.LogChunk(chunk.attempt, chunk.next_offset, chunk.next_offset, ""))]
        attempt, offset = self._log if self._log[0] == run.attempt else (run.attempt, 0)
        chunk = logs.tail(self.settings, run, attempt=attempt, offset=offset, colours=True)
        if chunk.next_offset <= offset:
            return []
        self._log = (attempt, chunk.next_offset)
        self.has_more = self.has_more or chunk.next_offset - chunk.offset >= logs.LIMIT_BYTES // 2
        return [self._log_change(chunk)]

    def _log_change(self, chunk: logs.LogChunk) -> Change:
        return Change("log", {"run_id": self.run_id, **vars(chunk)}, self._cursor())

    def _cursor(self) -> str:
        return ".".join(str(number) for number in (*(self._position or (0, 0)), *(self._log or ())))


@dataclass
class ListFeed:
    """Follows the list of runs; its cursor is a digest of what the list shows."""

    database: Database
    after: str = ""
    has_more: bool = False
    is_active: bool = False
    _seen: dict[str, tuple[Any, ...]] | None = field(default=None)

    def poll(self) -> list[Change]:
        """Runs that are new or look different now."""
        with self.database.read() as session:
            rows = _rows(session, tuple(self._seen or ()))
        cursor = _digest(rows)
        before, self._seen = self._seen, rows
        self.is_active = any(row[1] in ACTIVE for row in rows.values())
        if before is None:
            return [Change("resync", {}, cursor)] if self.after and self.after != cursor else []
        changed = [row for run_id, row in rows.items() if before.get(run_id) != row]
        changes = [Change("run", dict(zip(_COLUMNS, row, strict=True)), cursor) for row in changed]
        return changes + ([Change("runs", {}, cursor)] if any(row[0] not in before for row in changed) else [])


_COLUMNS = ("run_id", "state", "intent", "phase", "step", "total_steps", "name", "waits_for", "priority", "rank")


def list_cursor(session: Session) -> str:
    """Where the feed of the list stands: hand it to the page with the list."""
    return _digest(_rows(session, ()))


def _listed() -> Select[*tuple[Any, ...]]:
    """The newest runs, all that are not over, and those that were listed before, as `known`."""
    run_id = col(Run.id)  # three indexes: every open tab asks this at every change, over ten thousand runs perhaps
    shown = core_select(run_id).where(col(Run.archived_at).is_(None))
    newest = shown.order_by(col(Run.created_at).desc(), run_id.desc()).limit(LISTED_RUNS).subquery()
    live = core_select(run_id).where(col(Run.state).in_((*ACTIVE, *WAITING)))
    known = core_select(run_id).where(run_id.in_(bindparam("known", expanding=True)))
    wanted = run_id.in_(union(core_select(newest), live, known))
    progress = (Run.id, Run.state, Run.intent, Run.phase, Run.step, Run.total_steps, Run.name)
    columns = (*progress, Run.waits_for, Run.priority, Run.rank)
    return core_select(*(col(c) for c in columns)).where(wanted).order_by(run_id)


_LISTED = _listed()


def _rows(session: Session, known: Sequence[str]) -> dict[str, tuple[Any, ...]]:
    """What the list shows of its runs, by their ids, in the order of these."""
    return {row[0]: tuple(row) for row in session.execute(_LISTED, {"known": known})}


def _digest(rows: dict[str, tuple[Any, ...]]) -> str:
    return "list-" + hashlib.sha256(to_json(list(rows.values()))).hexdigest()[:16]
