"""Wakes this worker when another one has placed a run on it. Best effort: the tick finds the run a little later."""

import logging
import threading
from collections.abc import Callable

import redis

from server.queue import WORKER_CHANNEL, redis_client_url

logger = logging.getLogger(__name__)

_RETRY_S = 3.0
_POLL_S = 1.0


class WakeListener(threading.Thread):
    """Calls `look()` for every message on the workers' channel that is `worker_id`; ends at once without a broker."""

    def __init__(self, broker_url: str, worker_id: str, look: Callable[[], object]) -> None:
        super().__init__(name="wakes", daemon=True)
        self._url = redis_client_url(broker_url)
        self._worker_id = worker_id.encode()
        self._look = look
        self._stopped = threading.Event()

    def run(self) -> None:
        while self._url and not self._stopped.is_set():
            try:
                self._listen()
            except (redis.RedisError, OSError) as error:
                logger.warning("no wake-ups from the broker (%s): looking every few seconds", error)
            except Exception:  # the thread's boundary: the tick tries the same again
                logger.exception("a wake-up failed, the next tick tries again")
            self._stopped.wait(_RETRY_S)

    def stop(self) -> None:
        self._stopped.set()

    def _listen(self) -> None:
        with redis.Redis.from_url(self._url, socket_connect_timeout=3) as client, client.pubsub() as channel:
            channel.subscribe(WORKER_CHANNEL)
            while not self._stopped.is_set():
                message = channel.get_message(ignore_subscribe_messages=True, timeout=_POLL_S)
                if message is not None and message["data"] == self._worker_id:
                    self._look()
