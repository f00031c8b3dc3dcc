"""How times, names and stored values read on a page, and what else is a filter of the templates (see `templating`).

Numbers have their home in `server.numbers`.
"""

import math
import time
from typing import Any
from urllib.parse import urlsplit

from server.numbers import (
    DASH,
    count,
    duration,
    metric,
    percent,
    plural,
    quantity,
    short_count,
    size,
)


def plain(value: Any, missing: str = DASH) -> str:
    """A value of a configuration, or another stored one, as it reads: `yes`, `1,234,567`, `1e-05`.

    Args:
        missing: what stands for None, an empty text or list.
    """
    if value is None or value in ("", []):
        return missing
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, list):
        return " ".join(map(str, value))
    # Whole: what was typed is told apart from everything else that can be typed.
    return repr(value).removesuffix(".0") if isinstance(value, float) else str(value)


def iso(ts: float | None) -> str:
    """Unix seconds as ISO 8601 in UTC, for `<time datetime>`."""
    return "" if ts is None else time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(ts))


def when(ts: float | None) -> str:
    """Unix seconds as a person reads them, in UTC; the page's script makes it relative and local."""
    return DASH if ts is None else time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(ts))


def web_url(value: str) -> str:
    """`value` when it is an http(s) address, else `#`: no other scheme ever gets into a link."""
    return value if urlsplit(value).scheme in ("http", "https") else "#"


def basename(value: str) -> str:
    """The part of a model id or path that tells it apart: the last two of an id, the last of a local path."""
    return value.rstrip("/").rsplit("/", 1)[-1] if value.startswith(("/", ".", "~")) else value


def sentence(text: str) -> str:
    """With a capital letter; the rest as it is."""
    return text[:1].upper() + text[1:]


def words(name: str) -> str:
    """A state or another name of ours as people read it: `retry_wait` -> `Retry wait`."""
    return sentence(name.replace("_", " "))


def until(ts: float) -> str:
    """How far off a moment is: `in 24 s`, or `now`; the page's script counts it down."""
    left = ts - time.time()
    return f"in {duration(math.ceil(left))}" if left > 0 else "now"


FILTERS = {
    "metric": metric,
    "percent": percent,
    "count": count,
    "short_count": short_count,
    "duration": duration,
    "size": size,
    "quantity": quantity,
    "iso": iso,
    "when": when,
    "web_url": web_url,
    "basename": basename,
    "plural": plural,
    "sentence": sentence,
    "words": words,
    "until": until,
}
