"""Labels beside the dots of a plot. No database."""

import random

from server.pages.labels import DOT, Box, Label, place_labels
from server.pages.scatter import Point, scatter

FRAME = Box(0, 0, 500, 260)


def covers(label: Label, other: Label) -> bool:
    return label.box.meets(other.box)


def test_labels_cover_neither_each_other_nor_a_dot() -> None:
    draw = random.Random(0)
    for num_dots in (1, 12, 50):
        dots = [(draw.uniform(0, 500), draw.uniform(0, 260)) for _ in range(num_dots)]
        labels = place_labels(dots, [str(number) for number in range(1, num_dots + 1)], FRAME)
        placed = [(place, label) for place, label in enumerate(labels) if label]
        assert len(placed) > 0.7 * num_dots
        for place, label in placed:
            assert FRAME.holds(label.box)
            assert not any(covers(label, other) for at, other in placed if at != place)
            spots = [Box(x - DOT, y - DOT, x + DOT, y + DOT) for x, y in dots]
            assert not any(label.box.meets(spot) for spot in spots)


def test_dots_in_a_crowd_have_no_label_and_the_first_are_served_first() -> None:
    crowd = [(100.0, 100.0)] * 20
    labels = place_labels(crowd, ["7"] * 20, FRAME, first=[19])
    assert labels[19] is not None
    assert 4 <= sum(label is not None for label in labels) <= 8
    assert place_labels([(10.0, 10.0)], [""], FRAME) == [None]


def test_a_plot_counts_the_dots_without_a_mark() -> None:
    plot = scatter([Point(1.0, 2.0, "", "", mark=str(number)) for number in range(30)])
    assert plot is not None
    assert plot.num_unmarked == sum(dot.label is None for dot in plot.dots) >= 22
