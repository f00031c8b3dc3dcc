"""Which of many runs are worth a look: those that no other one beats in everything."""

import math
from collections.abc import Sequence


def frontier(points: Sequence[Sequence[float | None]]) -> list[int]:
    """Positions of the points that no other one dominates, ordered by their first coordinate; smaller is better in all.

    A point dominates another that it nowhere exceeds and somewhere undercuts; of equal points none dominates. Points
    with a coordinate that is missing or not finite are left out.

    Args:
        points: one value per objective each, for instance (L0, FVU).
    """
    known: list[tuple[tuple[float, ...], int]] = []
    for position, point in enumerate(points):
        values = tuple(value for value in point if value is not None and math.isfinite(value))
        if len(values) == len(point):
            known.append((values, position))
    # Whatever dominates a point comes before it in this order, and so does an undominated one that dominates it.
    found: list[tuple[tuple[float, ...], int]] = []
    for values, position in sorted(known):
        if not any(_dominates(other, values) for other, _ in found):
            found.append((values, position))
    return [position for _, position in found]


def _dominates(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one != other and all(a <= b for a, b in zip(one, other, strict=True))
