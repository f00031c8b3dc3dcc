"""Columns as bytes: little-endian, 8 bytes each, one column behind the other."""

import struct
from collections.abc import Sequence
from itertools import chain, repeat

from server.db.series.buckets import Buckets, Point

END = 2**62
"""A step behind all others."""


def pack_points(points: list[Point]) -> bytes:
    """Points of one attempt: events, steps, times, values."""
    steps, _, seqs, ts, values = zip(*points, strict=True)
    return struct.pack(f"<{2 * len(points)}q{2 * len(points)}d", *seqs, *steps, *ts, *values)


def unpack_columns(data: bytes) -> tuple[Sequence[int], Sequence[int], Sequence[float], Sequence[float]]:
    """Steps, events, times and values of points."""
    n = len(data) // 32
    numbers = struct.unpack(f"<{2 * n}q{2 * n}d", data)
    return numbers[n : 2 * n], numbers[:n], numbers[2 * n : 3 * n], numbers[3 * n :]


def unpack_points(data: bytes, attempt: int) -> list[Point]:
    steps, seqs, ts, values = unpack_columns(data)
    return list(map(Point, steps, repeat(attempt), seqs, ts, values))


def pack_buckets(buckets: Buckets) -> bytes:
    n = len(buckets.steps)
    return struct.pack(f"<{n}q{4 * n}d", *chain(*buckets))


def unpack_buckets(data: bytes) -> Buckets:
    n = len(data) // 40
    numbers = struct.unpack(f"<{n}q{4 * n}d", data)
    two, three, four = 2 * n, 3 * n, 4 * n
    return Buckets(numbers[:n], numbers[n:two], numbers[two:three], numbers[three:four], numbers[four:])
