"""The Celery application of the worker, and the timer that makes it independent of messages.

Messages say only "look": they are acknowledged early and never retried. The same is done every few seconds by a timer
in the worker, so a broker that is down, was flushed or has stopped delivering delays a start and loses nothing.
"""

import logging
import threading
from typing import Any

from celery import Celery
from celery.signals import setup_logging, worker_init, worker_shutdown
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from server.queue import QUEUE
from server.settings import Settings
from worker.host import HostWorker
from worker.wakes import WakeListener

logger = logging.getLogger(__name__)

TICK_S = 5.0
_FOREVER_S = 10 * 365 * 86_400


def make_app(settings: Settings) -> Celery:
    """A Celery application that takes only JSON, keeps no results and never delivers a message twice by itself."""
    app = Celery("sparseboard", broker=settings.redis_url, include=["worker.tasks"])
    app.conf.update(
        task_default_queue=QUEUE,
        task_ignore_result=True,
        task_acks_late=False,
        task_serializer="json",
        accept_content=["json"],
        worker_prefetch_multiplier=1,
        worker_pool="solo",
        worker_concurrency=1,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        worker_enable_remote_control=False,
        worker_send_task_events=False,
        broker_connection_retry=True,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options={"visibility_timeout": _FOREVER_S, "socket_connect_timeout": 3},
    )
    return app


class Ticker(threading.Thread):
    """Calls `host.tick()` at once and every `TICK_S` seconds; a database in trouble is tried again at the next tick."""

    def __init__(self, host: HostWorker) -> None:
        super().__init__(name="tick", daemon=True)
        self._host = host
        self._stopped = threading.Event()

    def run(self) -> None:
        while not self._stopped.is_set():
            try:
                self._host.tick()
            except (DBAPIError, PoolTimeoutError, OSError) as error:
                logger.warning("this tick failed, the next one tries again: %s", error)
            except Exception:  # the thread's boundary: without it nothing would ever be reaped again
                logger.exception("this tick failed, the next one tries again")
            self._stopped.wait(TICK_S)

    def stop(self) -> None:
        """Let a claim that is being made be finished: its run would be left to the lease otherwise."""
        self._stopped.set()
        if self.is_alive():
            self.join(timeout=4)


def attach(host: HostWorker, settings: Settings) -> Ticker:
    """Let the timer run as long as the worker does: before it has a broker, and without one."""
    ticker = Ticker(host)
    wakes = WakeListener(settings.redis_url, host.worker_id, host.look)

    def start(**_: Any) -> None:
        ticker.start()
        wakes.start()

    def stop(**_: Any) -> None:
        ticker.stop()
        wakes.stop()
        try:
            host.leave()
        except (DBAPIError, PoolTimeoutError) as error:
            logger.warning("the database does not know that this worker stops: %s", error)

    def keep_logging(**_: Any) -> None:
        """A receiver keeps Celery from configuring logging."""

    for signal, receiver in ((worker_init, start), (worker_shutdown, stop), (setup_logging, keep_logging)):
        signal.connect(receiver, weak=False)
    return ticker
