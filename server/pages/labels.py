"""Where the labels of a plot's dots stand: beside their own, on no other dot, and on no other label."""

from collections.abc import Collection, Sequence
from typing import Literal, NamedTuple

DOT = 6.0
"""Radius of a dot, in SVG units, as all lengths here."""
_CHARACTER, _HEIGHT = 10.0, 14.0
"""Size of a digit in the type of narrow screens, the larger one: scatter.css."""
_BESIDE, _ACROSS, _ABOVE = 10.0, 8.0, 14.0
"""From the middle of a dot to a label beside it, to one at its corner, and to the middle of one above it."""
_SIDES = ((1, -1), (1, 0), (-1, -1), (0, -1), (-1, 0), (1, 1), (-1, 1), (0, 1))
"""Right and left, below and above, as +1 and -1: the first that has room is taken."""


class Box(NamedTuple):
    """A rectangle."""

    left: float
    top: float
    right: float
    bottom: float

    def meets(self, other: "Box") -> bool:
        return (
            self.left < other.right and other.left < self.right and self.top < other.bottom and other.top < self.bottom
        )

    def holds(self, other: "Box") -> bool:
        return (
            self.left <= other.left
            and self.top <= other.top
            and other.right <= self.right
            and other.bottom <= self.bottom
        )


class Label(NamedTuple):
    """A text whose `anchor` is at `x`, and the middle of whose height is at `y`."""

    x: float
    y: float
    anchor: Literal["start", "middle", "end"]
    box: Box


def place_labels(
    dots: Sequence[tuple[float, float]], texts: Sequence[str], frame: Box, *, first: Collection[int] = ()
) -> list[Label | None]:
    """A label per dot inside the frame; None where there is no text, or no room.

    Args:
        first: places of the dots that are given room before the others.
    """
    spots = [Box(x - DOT, y - DOT, x + DOT, y + DOT) for x, y in dots]
    placed: dict[int, Label] = {}
    for place in sorted(range(len(dots)), key=lambda place: place not in first):
        taken = [spot for other, spot in enumerate(spots) if other != place] + [label.box for label in placed.values()]
        for side in _SIDES if texts[place] else ():
            label = _label(dots[place], len(texts[place]) * _CHARACTER, *side)
            if frame.holds(label.box) and not any(label.box.meets(other) for other in taken):
                placed[place] = label
                break
    return [placed.get(place) for place in range(len(dots))]


def _label(dot: tuple[float, float], width: float, across: int, down: int) -> Label:
    x = dot[0] + across * (_ACROSS if down else _BESIDE)
    y = dot[1] + down * (_ACROSS if across else _ABOVE)
    left = x - width / 2 if across == 0 else x if across > 0 else x - width
    box = Box(left, y - _HEIGHT / 2, left + width, y + _HEIGHT / 2)
    return Label(x, y, ("end", "middle", "start")[across + 1], box)
