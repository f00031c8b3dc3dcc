"""Channels: where notices of runs go."""

import time
from collections.abc import Sequence
from email.utils import parseaddr
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import delete
from sqlmodel import Session, col, select

from server.db.tables import Channel, Delivery
from server.errors import ConflictError, InvalidError
from server.notices.guard import RefusedError, check_url
from server.notices.message import EVENTS, USUAL_EVENTS
from server.services.lookup import get_row
from server.services.text import unwanted_character
from server.settings import Settings

MAX_CHANNELS = 50
RECENT = 5


class ChannelRequest(BaseModel):
    """A channel to be made."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    kind: Literal["webhook", "email"]
    target: Annotated[str, Field(min_length=1, max_length=1000)]
    """Where to: an https address, or that of a mailbox."""
    events: Annotated[list[str], Field(min_length=1, max_length=len(EVENTS))] = list(USUAL_EVENTS)
    """Kinds of events that it is told of."""


def create_channel(session: Session, wanted: ChannelRequest, *, settings: Settings) -> Channel:
    """Raises InvalidError when nothing could be sent there; ConflictError when there are too many."""
    unknown = [kind for kind in wanted.events if kind not in EVENTS]
    if unknown:
        raise InvalidError.field(("body", "events"), f"{unknown[0]} is none of {', '.join(EVENTS)}.", "choice")
    _check(wanted.kind, wanted.target.strip(), settings)
    if len(list_channels(session)) >= MAX_CHANNELS:
        raise ConflictError(f"There are {MAX_CHANNELS} channels, and no room for more: delete one first.")
    channel = Channel(kind=wanted.kind, target=wanted.target.strip(), events=list(dict.fromkeys(wanted.events)))
    session.add(channel)
    return channel


def _check(kind: str, target: str, settings: Settings) -> None:
    place = ("body", "target")
    if unwanted_character(target) or " " in target:
        raise InvalidError.field(place, "An address has no spaces and no invisible characters.", "target")
    if kind == "webhook":
        try:
            check_url(target, settings.webhook_hosts)
        except RefusedError as error:
            raise InvalidError.field(place, f"Notices cannot be sent there: {error}.", "target") from None
        return
    name, address = parseaddr(target)
    if name or address != target or address.count("@") != 1 or not all(address.split("@")):
        raise InvalidError.field(place, f"{target} is no mail address.", "target")
    if settings.smtp_url is None:
        message = "No mail server is set: start the server with SPARSEBOARD_SMTP_URL."
        raise InvalidError.field(place, message, "no_mail_server")


def list_channels(session: Session) -> list[Channel]:
    """All channels, the oldest first."""
    return list(session.exec(select(Channel).order_by(col(Channel.created_at), col(Channel.id))))


def get_channel(session: Session, channel_id: str) -> Channel:
    """Raises NotFoundError."""
    return get_row(session, Channel, channel_id, "channel")


def delete_channel(session: Session, channel_id: str) -> None:
    """With what it was sent. Raises NotFoundError."""
    channel = get_channel(session, channel_id)
    session.execute(delete(Delivery).where(col(Delivery.channel_id) == channel_id))
    session.delete(channel)


def send_test(session: Session, channel_id: str) -> Delivery:
    """Have a test sent within seconds; `Delivery` says what came of it. Raises NotFoundError."""
    channel = get_channel(session, channel_id)
    old = session.get(Delivery, (channel.id, 0))
    if old is not None:
        session.delete(old)
        session.flush()
    test = Delivery(channel_id=channel.id, event_id=0, created_at=time.time())
    session.add(test)
    return test


def recent(session: Session, channel_id: str, *, limit: int = RECENT) -> Sequence[Delivery]:
    """What was sent to a channel, the newest first."""
    newest = select(Delivery).where(Delivery.channel_id == channel_id).order_by(col(Delivery.created_at).desc())
    return session.exec(newest.limit(limit)).all()
