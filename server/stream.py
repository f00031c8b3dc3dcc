"""The event stream: one per browser tab, resumable at every event, woken by hints and fed from the database.

No stream holds a database connection: each look is a short session of its own.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.sse import EventSourceResponse, ServerSentEvent

from server.auth import CurrentUser, User, is_still_welcome
from server.db.session import Database
from server.db.trouble import TROUBLE
from server.errors import InvalidError, TooManyRequestsError
from server.hints import Hints
from server.notices.feed import NoticeFeed
from server.services.feeds import ListFeed, RunFeed
from server.services.metrics import MAX_RUNS
from server.services.metrics_feed import OverlayFeed
from server.services.runs import get_run
from server.services.samples import get_worker
from server.services.worker_feed import WorkerFeed

logger = logging.getLogger(__name__)

router = APIRouter(tags=["events"])

MAX_STREAMS = 8
"""Per login."""
MIN_INTERVAL_S = 0.25
POLL_ACTIVE_S = 2.0
POLL_IDLE_S = 5.0
POLL_HINTED_S = 15.0
"""How often to look without a hint: while something runs, while nothing does, and then if a broker would tell."""
WELCOME_EVERY_S = 5.0
_MAX_LENGTH = 2000
"""Characters of the topics, and of a cursor: those of `MAX_RUNS` runs fit."""

Feed = RunFeed | OverlayFeed | ListFeed | WorkerFeed | NoticeFeed


@dataclass(frozen=True)
class Subscription:
    """What a stream follows: the cursor of the first feed is the stream's."""

    user: User
    feeds: list[Feed]
    run_ids: frozenset[str] = frozenset()
    """The runs whose hints wake it; those of any run do if it follows all."""


async def _subscribe(
    request: Request,
    user: CurrentUser,
    topics: Annotated[str, Query(max_length=_MAX_LENGTH)],
    after: Annotated[str, Query(max_length=_MAX_LENGTH)] = "",
    last_event_id: Annotated[str, Header()] = "",
) -> AsyncIterator[Subscription]:
    """Take one of the login's streams; it is given back when the stream ends."""
    open_streams: Counter[str] = request.app.state.open_streams
    key = user.session_id or user.token_id
    if open_streams[key] >= MAX_STREAMS:
        raise TooManyRequestsError(f"At most {MAX_STREAMS} streams may be open: close a tab.", retry_after_s=15)
    subscription = await run_in_threadpool(_parse, request, user, topics, last_event_id or after)
    open_streams[key] += 1
    try:
        yield subscription
    finally:
        open_streams[key] -= 1


def _parse(request: Request, user: User, topics: str, cursor: str) -> Subscription:
    wanted: dict[str, list[str]] = {}
    for topic in topics.split(","):
        kind, _, name = topic.partition(":")
        wanted.setdefault(kind, []).append(name)
    of_all = {kind: wanted.pop(kind, []) for kind in ("runs", "notices")}
    match list(wanted.items()):
        case []:
            main = Subscription(user, [])
        case [("run", [run_id])]:
            main = _run_subscription(request, user, run_id, cursor)
        case [("metrics", run_ids)] if len(set(run_ids)) == len(run_ids) <= MAX_RUNS:
            main = _overlay_subscription(request, user, run_ids, cursor)
        case [("worker", [worker_id])]:
            main = _worker_subscription(request.app.state.db, user, worker_id, cursor)
        case _:
            raise _unknown_topics()
    return replace(main, feeds=[*main.feeds, *_feeds_of_all(request, of_all, "" if main.feeds else cursor)])


def _feeds_of_all(request: Request, wanted: dict[str, list[str]], cursor: str) -> list[Feed]:
    """What tells of all runs, whatever else the stream follows."""
    database = request.app.state.db
    match wanted["runs"], wanted["notices"]:
        case [""], []:
            return [ListFeed(database, after=cursor)]
        case [], [after]:
            return [NoticeFeed(database, after=cursor or after)]
        case [""], [after]:
            return [ListFeed(database, after=cursor), NoticeFeed(database, after=after)]
        case [], []:
            return []
    raise _unknown_topics()


def _unknown_topics() -> InvalidError:
    message = f"Topics are one of `run:<id>`, `worker:<id>` and up to {MAX_RUNS} `metrics:<id>`, besides `runs`, and "
    message += "`notices` or `notices:<id>` for those behind that one; in any order, each once."
    return InvalidError.field(("query", "topics"), message, "topics")


def _run_subscription(request: Request, user: User, run_id: str, cursor: str) -> Subscription:
    state = request.app.state
    with state.db.read() as session:
        get_run(session, run_id)
    return Subscription(user, [RunFeed(state.settings, state.looks, run_id, after=cursor)], frozenset([run_id]))


def _overlay_subscription(request: Request, user: User, run_ids: list[str], cursor: str) -> Subscription:
    state = request.app.state
    with state.db.read() as session:
        for run_id in run_ids:
            get_run(session, run_id)
    return Subscription(user, [OverlayFeed(state.looks, run_ids, after=cursor)], frozenset(run_ids))


def _worker_subscription(database: Database, user: User, worker_id: str, cursor: str) -> Subscription:
    with database.read() as session:
        get_worker(session, worker_id)
    try:
        after = float(cursor or 0)
    except ValueError:
        after = 0.0
    return Subscription(user, [WorkerFeed(database, worker_id, after)])


@router.get("/events", response_class=EventSourceResponse, include_in_schema=False)
async def events(
    request: Request, subscription: Annotated[Subscription, Depends(_subscribe)]
) -> AsyncIterator[ServerSentEvent]:
    """Follow `topics`: events `metrics`, `log`, `run`, `runs`, `sample`, `notice`, and `resync` to load all anew."""
    try:
        async for event in _follow(request, subscription):
            yield event
    except TROUBLE as error:  # the browser comes back with its cursor, and is answered 503 until the database is there
        logger.warning("a stream ends, the database is in trouble: %s", error)


async def _follow(request: Request, subscription: Subscription) -> AsyncIterator[ServerSentEvent]:
    hints: Hints = request.app.state.hints
    welcome_until = time.monotonic() + WELCOME_EVERY_S
    with ExitStack() as stack:
        follows_all = any(isinstance(feed, ListFeed | NoticeFeed) for feed in subscription.feeds)
        woken = stack.enter_context(hints.listen(None if follows_all else subscription.run_ids))
        while not hints.is_closing:
            looked_at = time.monotonic()
            woken.clear()
            for feed in subscription.feeds:
                for change in await run_in_threadpool(feed.poll):
                    cursor = change.cursor if feed is subscription.feeds[0] else None
                    yield ServerSentEvent(data=change.data, event=change.name, id=cursor)
            if time.monotonic() > welcome_until:
                welcome_until = time.monotonic() + WELCOME_EVERY_S
                if not await run_in_threadpool(is_still_welcome, request.app.state.db, subscription.user):
                    return
            if not any(feed.has_more for feed in subscription.feeds):
                await _wait(woken, looked_at, _patience_s(subscription, hints))


def _patience_s(subscription: Subscription, hints: Hints) -> float:
    if any(feed.is_active for feed in subscription.feeds):
        return POLL_ACTIVE_S
    return POLL_HINTED_S if hints.is_connected else POLL_IDLE_S


async def _wait(woken: asyncio.Event, looked_at: float, patience_s: float) -> None:
    """Until a hint or the end of patience, but never so short that more than four looks a second come about."""
    try:
        async with asyncio.timeout(patience_s):
            await woken.wait()
    except TimeoutError:
        return
    await asyncio.sleep(max(0.0, MIN_INTERVAL_S - (time.monotonic() - looked_at)))
