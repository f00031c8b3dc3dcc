"""Names of the task and the queue, and the one function that wakes the workers.

The database row is the queue. A message carries nothing but "look": losing or doubling one changes nothing, because the
periodic tick finds queued rows anyway and a claim is a conditional UPDATE.
"""

from __future__ import annotations

import logging
import threading
from functools import lru_cache
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

if TYPE_CHECKING:  # celery takes half a second to import: only those who send do so
    from celery import Celery

log = logging.getLogger(__name__)

PROTOCOL = 1
"""Version of what workers and server share: tables, messages, files. Raised when an older worker would do harm."""

QUEUE = "sparseboard"
CLAIM_TASK = "sparseboard.claim"
HINT_CHANNEL = "sparseboard.hint"
"""Redis pub/sub channel whose messages are run ids: "something about this run changed, look into the database"."""
WORKER_CHANNEL = "sparseboard.worker"
"""Redis pub/sub channel whose messages are worker ids: "look for runs"."""


def redis_client_url(broker_url: str) -> str:
    """The broker's address as redis-py writes it: kombu's `redis+socket://` is redis-py's `unix://`."""
    url = urlsplit(broker_url)
    if url.scheme != "redis+socket":
        return broker_url
    database = parse_qs(url.query).get("virtual_host", ["0"])[0]
    return f"unix://{url.netloc}{url.path}?db={database}"


@lru_cache
def celery_client(broker_url: str) -> Celery:
    """A Celery application that can only send; the worker has its own with the tasks."""
    from celery import Celery

    app = Celery("sparseboard", broker=broker_url)
    app.conf.update(
        task_ignore_result=True,
        task_default_queue=QUEUE,
        accept_content=["json"],
        broker_transport_options={"socket_timeout": 3, "socket_connect_timeout": 3, "max_retries": 1},
    )
    return app


def wake_workers(broker_url: str) -> bool:
    """Tell the workers to look for queued runs. Call after commit. Returns whether the broker took the message."""
    from kombu.exceptions import OperationalError

    try:
        celery_client(broker_url).send_task(CLAIM_TASK, queue=QUEUE, retry=False, expires=60)
    except (OperationalError, OSError) as error:
        log.warning("the broker did not take the wake-up (%s): the run stays queued and the next tick finds it", error)
        return False
    return True


def publish_hint(broker_url: str, *run_ids: str) -> bool:
    """Tell everybody who watches that something about these runs changed. Returns whether the broker took that."""
    from redis import Redis, RedisError

    try:
        with Redis.from_url(redis_client_url(broker_url), socket_timeout=3, socket_connect_timeout=3) as client:
            for run_id in run_ids:
                client.publish(HINT_CHANNEL, run_id)
    except (RedisError, OSError) as error:
        log.warning("the broker took no hint (%s): browsers see the change a little later", error)
        return False
    return True


def announce(broker_url: str, *run_ids: str, wake: bool = False) -> None:
    """Hint at the change of these runs, if any, and with `wake` wake the workers; in the background, for a broker may
    be slow.
    """

    def send() -> None:
        if (not run_ids or publish_hint(broker_url, *run_ids)) and wake:
            wake_workers(broker_url)

    if broker_url:
        threading.Thread(target=send, name="announce", daemon=True).start()
