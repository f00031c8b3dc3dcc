"""Listens to the workers' hints: one Redis subscription per process, whatever the number of open streams.

A hint says "look into the database" and nothing else. Without a broker nobody is woken and everybody polls.
"""

import asyncio
import contextlib
import logging
import signal
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from types import FrameType
from typing import Any

from server.queue import HINT_CHANNEL, redis_client_url

logger = logging.getLogger(__name__)

_RETRY_S = 3.0


class Hints:
    """Wakes the streams that wait for a run. `is_connected` tells whether hints can come at all."""

    def __init__(self) -> None:
        self.is_connected = False
        self.is_closing = False
        self._listeners: dict[asyncio.Event, str | None] = {}

    @contextmanager
    def listen(self, run_id: str | None) -> Iterator[asyncio.Event]:
        """An event that is set at every hint about `run_id`, or about any run when it is None."""
        event = asyncio.Event()
        self._listeners[event] = run_id
        try:
            yield event
        finally:
            del self._listeners[event]

    def close(self) -> None:
        """Send every stream home."""
        self.is_closing = True
        for event in self._listeners:
            event.set()

    def wake(self, run_id: str) -> None:
        for event, wanted in self._listeners.items():
            if wanted is None or wanted == run_id:
                event.set()


@contextmanager
def closed_by_signals(hints: Hints) -> Iterator[None]:
    """Let a termination signal end the streams at once: the server waits for open answers before it stops."""
    if threading.current_thread() is not threading.main_thread():  # only the main thread gets signals
        yield
        return
    loop = asyncio.get_running_loop()
    handlers: dict[int, Any] = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def handle(number: int, frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(hints.close)
        if callable(handlers[number]):
            handlers[number](number, frame)

    for number in handlers:
        signal.signal(number, handle)
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


@asynccontextmanager
async def watch(broker_url: str) -> AsyncIterator[Hints]:
    """Hints for the time of the context; silent when `broker_url` is empty."""
    hints = Hints()
    task = asyncio.create_task(_subscribe(hints, broker_url)) if broker_url else None
    yield hints
    hints.close()
    if task is not None:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def _subscribe(hints: Hints, broker_url: str) -> None:
    from redis import RedisError  # 0.2 s and 10 MB that a server without a broker does not need
    from redis.asyncio import Redis

    while True:
        try:
            async with Redis.from_url(redis_client_url(broker_url)) as client, client.pubsub() as channel:
                await channel.subscribe(HINT_CHANNEL)
                hints.is_connected = True
                async for message in channel.listen():
                    if message["type"] == "message":
                        hints.wake(message["data"].decode("ascii", errors="replace"))
        except (RedisError, OSError) as error:
            logger.warning("no hints from the broker (%s): looking into the database every few seconds", error)
        hints.is_connected = False
        await asyncio.sleep(_RETRY_S)
