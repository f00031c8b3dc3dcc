"""Tells whoever watches that something about a run changed. Best effort: the database is what they look into."""

import logging
import time

import redis

from server.queue import HINT_CHANNEL, WORKER_CHANNEL, redis_client_url

logger = logging.getLogger(__name__)

_PAUSE_S = 10.0
"""How long a broker that did not answer is left alone, so that ingest never waits for it."""


class Hints:
    """Publishes ids of runs and workers; silent while there is no broker."""

    def __init__(self, broker_url: str) -> None:
        self._client = (
            redis.Redis.from_url(redis_client_url(broker_url), socket_timeout=1, socket_connect_timeout=1)
            if broker_url
            else None
        )
        self._silent_until = 0.0

    def publish(self, run_id: str) -> None:
        """Something about a run changed."""
        self._send(HINT_CHANNEL, run_id)

    def wake(self, worker_id: str) -> None:
        """Have a worker look for runs: one was placed on it, or devices became free."""
        self._send(WORKER_CHANNEL, worker_id)

    def _send(self, channel: str, message: str) -> None:
        if self._client is None or time.monotonic() < self._silent_until:
            return
        try:
            self._client.publish(channel, message)
        except (redis.RedisError, OSError) as error:
            self._silent_until = time.monotonic() + _PAUSE_S
            logger.warning("the broker took no hint (%s): browsers see the change a little later", error)
