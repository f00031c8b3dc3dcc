"""Identifiers that sort by creation time."""

import secrets
import time

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
ID_LENGTH = 26
ID_PATTERN = f"^[{_ALPHABET}]{{{ID_LENGTH}}}$"


def new_id() -> str:
    """A ULID in lower case: 48 bits of milliseconds, 80 random bits (https://github.com/ulid/spec)."""
    number = (time.time_ns() // 1_000_000) << 80 | secrets.randbits(80)
    return "".join(_ALPHABET[number >> shift & 31] for shift in range(125, -1, -5))
