"""Listens to the workers' hints: one Redis subscription per process, whatever the number of open streams.

A hint says "look into the database" and nothing else. Without a broker nobody is woken and everybody polls.
"""

import asyncio
import contextlib
import logging
import signal
import threading
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Collection, Iterator
from contextlib import asynccontextmanager, contextmanager
from types import FrameType
from typing import Any

from server.queue import HINT_CHANNEL, redis_client_url

logger = logging.getLogger(__name__)

_RETRY_S = 3.0
_PING_S = 5.0
_SILENT_S = 12.0
"""A broker that was not heard for so long counts as down: it has missed two pings."""
_MAX_UNANSWERED = 3
_REMEMBERED = 1000
_ANSWER_S = 5.0


class Hints:
    """Wakes the streams that wait for a run, and knows how the broker is: it is asked every few seconds."""

    def __init__(self, *, has_broker: bool) -> None:
        self._has_broker = has_broker
        self._is_connected = False
        self._heard_at = time.monotonic()
        self.is_closing = False
        self._listeners: dict[asyncio.Event, Collection[str] | None] = {}
        self._heard_of: OrderedDict[str, float] = OrderedDict()

    @property
    def broker_age_s(self) -> float | None:
        """Seconds since the broker was last heard, or since the start; None without a broker."""
        return time.monotonic() - self._heard_at if self._has_broker else None

    @property
    def is_broker_down(self) -> bool:
        return self._has_broker and time.monotonic() - self._heard_at > _SILENT_S

    @property
    def is_connected(self) -> bool:
        """Whether hints can come at all."""
        return self._is_connected and not self.is_broker_down

    def hear(self) -> None:
        """The broker has said something."""
        self._is_connected = True
        self._heard_at = time.monotonic()

    def lose(self) -> None:
        """The connection to the broker is gone."""
        self._is_connected = False

    @contextmanager
    def listen(self, run_ids: Collection[str] | None) -> Iterator[asyncio.Event]:
        """An event that is set at every hint about one of these runs, or about any run when they are None."""
        event = asyncio.Event()
        self._listeners[event] = run_ids
        try:
            yield event
        finally:
            del self._listeners[event]

    def close(self) -> None:
        """Send every stream home."""
        self.is_closing = True
        for event in self._listeners:
            event.set()

    def heard_of(self, run_id: str) -> float:
        """When the newest hint about a run came, by the monotonic clock."""
        return self._heard_of.get(run_id, 0.0)

    def wake(self, run_id: str) -> None:
        """Let all who follow a run look at it."""
        self._heard_of[run_id] = time.monotonic()
        self._heard_of.move_to_end(run_id)
        if len(self._heard_of) > _REMEMBERED:
            self._heard_of.popitem(last=False)
        for event, wanted in self._listeners.items():
            if wanted is None or run_id in wanted:
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
    hints = Hints(has_broker=bool(broker_url))
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
            async with (
                Redis.from_url(
                    redis_client_url(broker_url), socket_connect_timeout=_ANSWER_S, socket_timeout=_ANSWER_S
                ) as client,
                client.pubsub() as channel,
            ):
                await channel.subscribe(HINT_CHANNEL)
                unanswered = 0
                while unanswered < _MAX_UNANSWERED:  # then a new connection is tried
                    message = await channel.get_message(timeout=_PING_S)
                    if message is None:
                        await channel.ping()
                        unanswered += 1
                        continue
                    unanswered = 0
                    hints.hear()
                    if message["type"] == "message":
                        hints.wake(message["data"].decode("ascii", errors="replace"))
        except (RedisError, OSError) as error:
            logger.warning("no hints from the broker (%s): looking into the database every few seconds", error)
        hints.lose()
        await asyncio.sleep(_RETRY_S)
