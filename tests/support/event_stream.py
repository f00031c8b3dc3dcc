"""Reads an event stream as a browser does."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import httpx2 as httpx
from fastapi import FastAPI
from sqlmodel import select

from rows import add_point
from server.db.tables import Attempt, Run


class StreamEvent(NamedTuple):
    """One event of a stream; `id` is the cursor behind it."""

    name: str
    data: dict[str, Any]
    id: str


def parse(lines: Iterator[str]) -> Iterator[StreamEvent]:
    """The events of a stream's lines."""
    fields: dict[str, str] = {}
    for line in lines:
        if line and not line.startswith(":"):
            name, _, value = line.partition(": ")
            fields[name] = value
        elif not line and fields:
            yield StreamEvent(fields.get("event", ""), json.loads(fields["data"]), fields.get("id", ""))
            fields = {}


@contextmanager
def follow(
    client: httpx.Client, topics: str, after: str = "", last: str | None = None
) -> Iterator[Iterator[StreamEvent]]:
    params = {"topics": topics} | ({"after": after} if after else {})
    headers = {"Last-Event-ID": last} if last is not None else {}
    with client.stream("GET", "/events", params=params, headers=headers) as answer:
        assert answer.status_code == 200, answer.read()
        assert answer.headers["content-type"].startswith("text/event-stream")
        yield parse(answer.iter_lines())


def until(events: Iterator[StreamEvent], name: str) -> StreamEvent:
    return next(event for event in events if event.name == name)


def steps(event: StreamEvent) -> list[int]:
    return [point[1] for point in event.data["points"]]


def append(app: FastAPI, run: Run, *seqs: int) -> None:
    """As ingest does: points and position in one transaction."""
    with app.state.db.write() as session:
        session.exec(select(Attempt).where(Attempt.run_id == run.id)).one().event_seq = seqs[-1]
        for seq in seqs:
            add_point(session, run, seq, float(seq))
