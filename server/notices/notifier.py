"""The thread that looks every few seconds."""

import logging
import threading

from server.db.session import Database
from server.db.trouble import TROUBLE
from server.notices.acting import Watch
from server.notices.delivery import Deliveries
from server.settings import Settings

logger = logging.getLogger(__name__)

LOOK_EVERY_S = 3.0


class Notifier(threading.Thread):
    """Acts on watch rules and sends what is due until it is stopped."""

    def __init__(self, database: Database, settings: Settings) -> None:
        super().__init__(name="notices", daemon=True)
        self._parts = (Watch(database, settings), Deliveries(database, settings))
        self._stopped = threading.Event()

    def run(self) -> None:
        while not self._stopped.wait(LOOK_EVERY_S):
            for part in self._parts:
                try:
                    part.work()
                except TROUBLE as error:
                    logger.warning("the next look tries again: %s", error)
                except Exception:  # the thread's boundary: without it nobody would ever be told anything again
                    logger.exception("the next look tries again")

    def stop(self) -> None:
        """A notice that is being sent is sent again by the next server if it does not end in time."""
        self._stopped.set()
        self.join(timeout=2)
