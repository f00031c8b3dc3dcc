"""What may stand in text that people typed or programs printed, before it is stored or shown."""

import re
import unicodedata

_ESCAPES = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[@-Z\\-_]")
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u200e\u200f]")
_COLOUR = re.compile(r"(\x1b\[[0-9;]*m)")
_JOINER = "\u200d"
"""Joins emoji; the one format character that a name may hold."""


def unwanted_character(text: str) -> str | None:
    """The first control, bidirectional, surrogate or line separator character of `text`, as `U+202E`."""
    for character in text:
        if unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp") and character != _JOINER:
            return f"U+{ord(character):04X}"
    return None


def printable(output: bytes) -> str:
    """Output of a program as plain text: no terminal escapes, no control or bidirectional characters."""
    return _plain(output.decode("utf-8", errors="replace"))


def coloured(output: bytes) -> str:
    """Output of a program as `printable` gives it, but with its escapes for colours and weights (SGR)."""
    pieces = _COLOUR.split(output.decode("utf-8", errors="replace"))
    return "".join(piece if number % 2 else _plain(piece) for number, piece in enumerate(pieces))


def _plain(text: str) -> str:
    return _CONTROLS.sub("", _ESCAPES.sub("", text).replace("\r\n", "\n").replace("\r", "\n"))
