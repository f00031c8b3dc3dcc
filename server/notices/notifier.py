"""The threads that look every few seconds: rules act at once, however long a mail server takes."""

import logging
import threading
from collections.abc import Callable

from server.db.session import Database
from server.db.trouble import TROUBLE
from server.notices.acting import Watch
from server.notices.checkup import Checkup
from server.notices.delivery import Deliveries
from server.services.diagnosis import Diagnoses
from server.settings import Settings

logger = logging.getLogger(__name__)

LOOK_EVERY_S = 3.0
_CHECKUP_EVERY_S = 30.0


class Notifier:
    """Acts on watch rules, looks after runs and sends what is due until it is stopped."""

    def __init__(self, database: Database, settings: Settings, diagnoses: Diagnoses) -> None:
        self._stopped = threading.Event()
        parts = (
            ("watch", Watch(database, settings).work, LOOK_EVERY_S),
            ("checkup", Checkup(database, diagnoses).work, _CHECKUP_EVERY_S),
            ("notices", Deliveries(database, settings).work, LOOK_EVERY_S),
        )
        self._threads = [
            threading.Thread(target=self._repeat, args=[work, every_s], name=name, daemon=True)
            for name, work, every_s in parts
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """A notice that is being sent is sent again by the next server if it does not end in time."""
        self._stopped.set()
        for thread in self._threads:
            thread.join(timeout=1)

    def _repeat(self, work: Callable[[], object], every_s: float) -> None:
        while not self._stopped.wait(every_s):
            try:
                work()
            except TROUBLE as error:
                logger.warning("the next look tries again: %s", error)
            except Exception:  # the thread's boundary: without it nobody would ever be told anything again
                logger.exception("the next look tries again")
