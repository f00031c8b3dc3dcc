"""What a check finds."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Finding:
    """`fail`: it will not work. `warn`: something does not work, or not well. `advice` says what to do about it."""

    verdict: Literal["ok", "warn", "fail"]
    sentence: str
    advice: str = ""


def ok(sentence: str) -> Finding:
    return Finding("ok", sentence)


def warn(sentence: str, advice: str) -> Finding:
    return Finding("warn", sentence, advice)


def fail(sentence: str, advice: str) -> Finding:
    return Finding("fail", sentence, advice)
