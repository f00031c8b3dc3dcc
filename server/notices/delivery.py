"""Which notices are due, and their sending: every event once to every channel that wants it, again while it fails.

An event becomes a Delivery row, whose key makes it one; whoever sends it first moves its `not_before` ahead, so two
servers do not send it at the same time. A server that dies in between has it sent again: at least once, never lost.
"""

import logging
import threading
import time

from sqlalchemy import Update, delete, update
from sqlmodel import Session, col, func, select

from server.db.runs.apply import execute
from server.db.session import Database
from server.db.tables import Channel, Delivery, Run, RunEvent
from server.db.trouble import TROUBLE
from server.notices.key import signing_key
from server.notices.message import Notice, notice_of, test_notice
from server.notices.sending import SendError, mail, post
from server.settings import Settings

logger = logging.getLogger(__name__)

RETRY_AFTER_S = (10.0, 60.0, 300.0, 1800.0, 7200.0)
"""Waits between tries; after the last one the notice has failed."""
_CLAIM_S = 90.0
"""More than a try takes, at most 20 s for connecting and as much for the answer."""
_LATE_COMMITS = 1000
"""So many events back it looks again: on PostgreSQL a lower id may be committed after a higher one."""
_MAX_AGE_S = 86_400.0
_KEPT_S = 30 * 86_400.0
_BATCH = 2 * _LATE_COMMITS
_PARALLEL = 8
"""Notices that are sent at a time. What hangs holds up the others of its batch only."""


class Deliveries:
    """Plans and sends; one object per server."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._settings = settings
        self._seen_id = 0

    def work(self) -> int:
        """Send what is due. Returns how many notices were tried."""
        now = time.time()
        with self._database.read() as session:
            channels = list(session.exec(select(Channel)))
            if not channels:
                return 0
            missing, newest = self._missing(session, channels, now)
        if missing:
            with self._database.write() as session:
                for channel_id, event_id in missing:
                    if session.get(Delivery, (channel_id, event_id)) is None:
                        session.add(Delivery(channel_id=channel_id, event_id=event_id))
                execute(session, delete(Delivery).where(col(Delivery.created_at) < now - _KEPT_S))
        self._seen_id = newest
        due = self._claim(time.time())
        # Daemons: a server that ends does not wait for the other side, and the notice is sent again by the next one.
        senders = [threading.Thread(target=self._deliver, args=place, daemon=True) for place in due]
        for sender in senders:
            sender.start()
        for sender in senders:
            sender.join()
        return len(due)

    def _missing(self, session: Session, channels: list[Channel], now: float) -> tuple[list[tuple[str, int]], int]:
        """(channel, event) of events that have no row yet, and the id up to which this has seen them all."""
        newest = session.exec(select(func.max(RunEvent.id))).one() or 0
        recent = (
            select(RunEvent.id, RunEvent.kind, RunEvent.ts)
            .where(col(RunEvent.id) > max(0, self._seen_id - _LATE_COMMITS), RunEvent.ts > now - _MAX_AGE_S)
            .where(col(RunEvent.kind).in_({kind for channel in channels for kind in channel.events}))
        )
        events = session.exec(recent.order_by(col(RunEvent.id)).limit(_BATCH)).all()
        if len(events) == _BATCH:
            newest = events[-1][0] or 0
        ids = {event_id for event_id, _, _ in events}
        there = set(session.exec(select(Delivery.channel_id, Delivery.event_id).where(col(Delivery.event_id).in_(ids))))
        return [
            (channel.id, event_id)
            for channel in channels
            for event_id, kind, ts in events
            if event_id is not None
            and kind in channel.events
            and ts >= channel.created_at
            and (channel.id, event_id) not in there
        ], newest

    def _claim(self, now: float) -> list[tuple[str, int]]:
        """Deliveries that are to be tried now, by this server."""
        waiting = select(Delivery).where(Delivery.state == "pending", Delivery.not_before <= now)
        with self._database.read() as session:
            found = session.exec(waiting.order_by(col(Delivery.not_before)).limit(_PARALLEL)).all()
        if not found:
            return []
        with self._database.write() as session:
            return [
                (row.channel_id, row.event_id)
                for row in found
                if execute(
                    session,
                    _row(row.channel_id, row.event_id)
                    .where(col(Delivery.state) == "pending", col(Delivery.not_before) == row.not_before)
                    .values(not_before=now + _CLAIM_S, tries=Delivery.tries + 1),
                )
            ]

    def _deliver(self, channel_id: str, event_id: int) -> None:
        try:
            self._try(channel_id, event_id)
        except TROUBLE as error:
            logger.warning("a notice is sent again later: %s", error)

    def _try(self, channel_id: str, event_id: int) -> None:
        place = (channel_id, event_id)
        with self._database.read() as session:
            channel, row = session.get(Channel, channel_id), session.get(Delivery, place)
            notice = self._notice(session, *place) if channel and row else None
        if channel is None or row is None or notice is None:
            return  # the channel was deleted meanwhile
        try:
            values = {"state": "sent", "message": self._send(channel, notice), "sent_at": time.time()}
        except SendError as error:
            values = {"message": str(error)}
            if error.is_final or row.tries > len(RETRY_AFTER_S):
                values["state"] = "failed"
            else:
                values["not_before"] = time.time() + RETRY_AFTER_S[row.tries - 1]
        except Exception as error:  # one notice that cannot be sent must not keep the others waiting for ever
            logger.exception("a notice to channel %s could not be sent", channel_id)
            values = {"state": "failed", "message": type(error).__name__}
        with self._database.write() as session:
            execute(session, _row(*place).values(**values))

    def _notice(self, session: Session, channel_id: str, event_id: int) -> Notice | None:
        notice_id = f"{channel_id}-{event_id}"
        if event_id == 0:
            return test_notice(notice_id, time.time())
        event = session.get(RunEvent, event_id)
        run = session.get(Run, event.run_id) if event else None
        if event is None or run is None:
            return None
        return notice_of(event, run, notice_id=notice_id, public_url=self._settings.public_url)

    def _send(self, channel: Channel, notice: Notice) -> str:
        if channel.kind == "email":
            return mail(channel.target, notice, settings=self._settings)
        key = signing_key(self._settings.data_dir, channel.id)
        return post(channel.target, notice, key=key, settings=self._settings)


def _row(channel_id: str, event_id: int) -> Update:
    return update(Delivery).where(col(Delivery.channel_id) == channel_id, col(Delivery.event_id) == event_id)
