"""What changed since a cursor: of one run, and of the list of runs. The database and the log are the source.

A run's cursor is `attempt.seq.log attempt.log offset`: that of its metrics, and the byte up to which the log has been
seen. The last two may be missing; the feed then begins at the log's present end.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic_core import to_json
from sqlalchemy import Select, bindparam, union
from sqlalchemy import select as core_select
from sqlmodel import Session, col

from server.db.session import Database
from server.db.tables import ACTIVE, WAITING, Run
from server.services import logs
from server.services.looks import Looks
from server.services.metrics_feed import Change, MetricsFeed
from server.settings import Settings

LISTED_RUNS = 200
_CURSOR = re.compile(r"(\d+\.\d+)\.(\d{1,9})\.(\d{1,15})", re.ASCII)


class RunFeed:
    """Follows one run with its log."""

    def __init__(self, settings: Settings, looks: Looks, run_id: str, after: str = "") -> None:
        match = _CURSOR.fullmatch(after)
        self._settings = settings
        self._run_id = run_id
        self._metrics = MetricsFeed(looks, run_id, match[1] if match else after)
        self._asked = (int(match[2]), int(match[3])) if match else None
        self._log: tuple[int, int] | None = None
        self._has_more_log = False

    @property
    def has_more(self) -> bool:
        return self._metrics.has_more or self._has_more_log

    @property
    def is_active(self) -> bool:
        return self._metrics.is_active

    def poll(self) -> list[Change]:
        """All changes since the last poll, oldest first."""
        changes = [change._replace(cursor=self._cursor()) for change in self._metrics.poll()]
        return changes + (self._log_changes(self._metrics.run) if self._metrics.run else [])

    def _log_changes(self, run: Run) -> list[Change]:
        """New lines of the log. A feed without a place in it says where the end is, so that the browser sees a gap."""
        self._has_more_log = False
        if self._log is None and self._asked and self._asked[0] <= run.attempt:
            self._log = self._asked
        if self._log is None:
            chunk = logs.tail(self._settings, run)
            self._log = (chunk.attempt, chunk.next_offset)
            return [self._log_change(logs.LogChunk(chunk.attempt, chunk.next_offset, chunk.next_offset, ""))]
        attempt, offset = self._log if self._log[0] == run.attempt else (run.attempt, 0)
        chunk = logs.tail(self._settings, run, attempt=attempt, offset=offset, colours=True)
        if chunk.next_offset <= offset:
            return []
        self._log = (attempt, chunk.next_offset)
        self._has_more_log = chunk.next_offset - chunk.offset >= logs.LIMIT_BYTES // 2
        return [self._log_change(chunk)]

    def _log_change(self, chunk: logs.LogChunk) -> Change:
        return Change("log", {"run_id": self._run_id, **vars(chunk)}, self._cursor())

    def _cursor(self) -> str:
        return ".".join([self._metrics.cursor, *map(str, self._log or self._asked or ())])


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
