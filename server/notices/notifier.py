"""The threads that look every few seconds: rules act at once, however long a mail server takes."""

import logging
import threading
from collections.abc import Callable

from server.db.session import Database
from server.db.trouble import TROUBLE
from server.notices.acting import Watch
from server.notices.delivery import Deliveries
from server.settings import Settings

logger = logging.getLogger(__name__)

LOOK_EVERY_S = 3.0


class Notifier:
    """Acts on watch rules and sends what is due until it is stopped."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._stopped = threading.Event()
        self._threads = [
            threading.Thread(target=self._repeat, args=[part.work], name=name, daemon=True)
            for name, part in (("watch", Watch(database, settings)), ("notices", Deliveries(database, settings)))
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """A notice that is being sent is sent again by the next server if it does not end in time."""
        self._stopped.set()
        for thread in self._threads:
            thread.join(timeout=1)

    def _repeat(self, work: Callable[[], object]) -> None:
        while not self._stopped.wait(LOOK_EVERY_S):
            try:
                work()
            except TROUBLE as error:
                logger.warning("the next look tries again: %s", error)
            except Exception:  # the thread's boundary: without it nobody would ever be told anything again
                logger.exception("the next look tries again")
