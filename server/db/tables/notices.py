"""Who is told what about runs, and the rules that watch them."""

import time

from sqlalchemy import BigInteger
from sqlmodel import Field, SQLModel

from server.db.ids import new_id
from server.db.tables.columns import json_column, text_column


class Channel(SQLModel, table=True):
    """Where notices go: an address that takes a POST, or a mailbox. The key that signs is derived, never stored."""

    id: str = Field(default_factory=new_id, primary_key=True, max_length=26)
    kind: str = Field(max_length=16)
    """webhook or email."""
    target: str = Field(max_length=1000)
    events: list[str] = json_column(list)
    """Kinds of RunEvent of which it is told."""
    created_at: float = Field(default_factory=time.time)


class Delivery(SQLModel, table=True):
    """One notice to one channel. The key lets only one server send it."""

    channel_id: str = Field(primary_key=True, foreign_key="channel.id", max_length=26)
    event_id: int = Field(primary_key=True)
    """Of the RunEvent; 0 is the channel's test."""
    state: str = Field(default="pending", max_length=16, index=True)
    """pending, sent or failed."""
    tries: int = 0
    not_before: float = Field(default_factory=time.time)
    """When it is tried next; whoever tries it sets this ahead first, so that nobody else does."""
    message: str = text_column()
    """What the last try answered."""
    created_at: float = Field(default_factory=time.time)
    sent_at: float | None = None


class WatchRule(SQLModel, table=True):
    """`if FVU > 0.4 at 20M tokens, stop`: tried on every run that trains and has a name like `runs`."""

    __tablename__ = "watch_rule"

    id: str = Field(default_factory=new_id, primary_key=True, max_length=26)
    metric: str = Field(max_length=64)
    above: bool
    """Whether it acts above `value`, or below it."""
    value: float
    from_tokens: int = Field(default=0, sa_type=BigInteger)
    """Training tokens before which it does not look."""
    action: str = Field(max_length=16)
    """notify, pause or cancel."""
    runs: str = Field(default="*", max_length=200)
    """Pattern of run names, with * and ?."""
    created_at: float = Field(default_factory=time.time)


class WatchHit(SQLModel, table=True):
    """A rule has acted on a run, which it does once."""

    __tablename__ = "watch_hit"

    rule_id: str = Field(primary_key=True, foreign_key="watch_rule.id", max_length=26)
    run_id: str = Field(primary_key=True, foreign_key="run.id", max_length=26)
    step: int
    value: float
    ts: float = Field(default_factory=time.time)
