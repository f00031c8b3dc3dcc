"""The line that the list of runs draws: steps and values, kept in the run's row, so that a list reads no series."""

import math
from collections.abc import Iterable
from typing import Any

from server.db.series.buckets import Point, width_for

SPARK_POINTS = 48


def begun_again(line: dict[str, list[Any]], step: int) -> dict[str, list[Any]]:
    """The line up to a step from which a newer attempt goes on."""
    kept = sum(known <= step for known in line["steps"])
    return {"steps": line["steps"][:kept], "values": line["values"][:kept]}


def drawn_on(line: dict[str, list[Any]], points: Iterable[Point]) -> dict[str, list[Any]]:
    """The line with more points: the last of each bucket, in at most `SPARK_POINTS` buckets."""
    known = dict(zip(line["steps"], line["values"], strict=True))
    known |= {point.step: point.value if math.isfinite(point.value) else None for point in points}
    steps = sorted(known)
    width = width_for(steps[0], steps[-1], SPARK_POINTS)
    last = {step // width: step for step in steps}
    return {"steps": list(last.values()), "values": [known[step] for step in last.values()]}
