"""Names of tasks and queues, and the one function that wakes the workers.

The database row is the queue. A message carries nothing but "look": losing or doubling one changes nothing, because the
periodic tick finds queued rows anyway and a claim is a conditional UPDATE.
"""

import logging
from functools import lru_cache

from celery import Celery
from kombu.exceptions import OperationalError

from server.settings import get_settings

log = logging.getLogger(__name__)

QUEUE = "sparseboard"
CLAIM_TASK = "sparseboard.claim"
TICK_TASK = "sparseboard.tick"
HINT_CHANNEL = "sparseboard.hint"
"""Redis pub/sub channel whose messages are run ids: "something about this run changed, look into the database"."""


@lru_cache
def celery_client() -> Celery:
    """A Celery application that can only send; the worker has its own with the tasks."""
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
    try:
        celery_client().send_task(CLAIM_TASK, queue=QUEUE, retry=False, expires=60)
    except (OperationalError, OSError) as error:
        log.warning("the broker did not take the wake-up (%s): the run stays queued and the next tick finds it", error)
        return False
    return True
