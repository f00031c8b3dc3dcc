"""Names of tasks and queues, and the one function that wakes the workers.

The database row is the queue. A message carries nothing but "look": losing or doubling one changes nothing, because the
periodic tick finds queued rows anyway and a claim is a conditional UPDATE.
"""

from __future__ import annotations

import logging
from functools import lru_cache
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

from server.settings import get_settings

if TYPE_CHECKING:  # celery takes half a second to import: only those who send do so
    from celery import Celery

log = logging.getLogger(__name__)

QUEUE = "sparseboard"
CLAIM_TASK = "sparseboard.claim"
TICK_TASK = "sparseboard.tick"
HINT_CHANNEL = "sparseboard.hint"
"""Redis pub/sub channel whose messages are run ids: "something about this run changed, look into the database"."""


def redis_client_url(broker_url: str) -> str:
    """The broker's address as redis-py writes it: kombu's `redis+socket://` is redis-py's `unix://`."""
    url = urlsplit(broker_url)
    if url.scheme != "redis+socket":
        return broker_url
    database = parse_qs(url.query).get("virtual_host", ["0"])[0]
    return f"unix://{url.netloc}{url.path}?db={database}"


@lru_cache
def celery_client() -> Celery:
    """A Celery application that can only send; the worker has its own with the tasks."""
    from celery import Celery

    app = Celery("sparseboard", broker=get_settings().redis_url)
    app.conf.update(
        task_ignore_result=True,
        task_default_queue=QUEUE,
        accept_content=["json"],
        broker_transport_options={"socket_timeout": 3, "socket_connect_timeout": 3, "max_retries": 1},
    )
    return app


def wake_workers() -> bool:
    """Tell the workers to look for queued runs. Call after commit. Returns whether the broker took the message."""
    from kombu.exceptions import OperationalError

    try:
        celery_client().send_task(CLAIM_TASK, queue=QUEUE, retry=False, expires=60)
    except (OperationalError, OSError) as error:
        log.warning("the broker did not take the wake-up (%s): the run stays queued and the next tick finds it", error)
        return False
    return True
