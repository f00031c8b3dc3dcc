"""Reads an event stream as a browser does."""

import json
from collections.abc import Iterator
from typing import Any, NamedTuple


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
