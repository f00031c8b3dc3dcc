"""New samples of one worker, for its page. A cursor is the time of the newest one that was seen."""

import time
from dataclasses import dataclass

from server.db.session import Database
from server.services import samples
from server.services.metrics_feed import Change

_HOUR_S = 3600.0


@dataclass
class WorkerFeed:
    """Follows one worker."""

    database: Database
    worker_id: str
    after: float
    has_more: bool = False
    is_active: bool = True

    def poll(self) -> list[Change]:
        """The samples since the last poll, oldest first; of a browser that was away for long the last hour's."""
        since = max(self.after, time.time() - _HOUR_S)
        with self.database.read() as session:
            rows = samples.list_samples(session, self.worker_id, since=since, hours=1)
        if rows:
            self.after = rows[-1].ts
        return [Change("sample", row.model_dump(exclude={"keep_until"}), repr(row.ts)) for row in rows]
