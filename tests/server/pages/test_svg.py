"""Geometry of the charts that are drawn without JavaScript."""

import pytest

from server.pages.svg import density_histogram, linear_histogram, sparkline


def test_sparkline_needs_two_finite_points() -> None:
    assert sparkline([]) == ""
    assert sparkline([0.5, None, float("nan")]) == ""


def test_sparkline_falls_with_its_values() -> None:
    points = [tuple(map(float, p.split(","))) for p in sparkline([1.0, 0.5, 0.25], width=100, height=22).split()]
    assert [x for x, _ in points] == [0, 50, 100]
    assert [y for _, y in points] == [1, 11, 21]


def test_density_histogram_counts_every_latent_once_and_the_silent_ones_apart() -> None:
    drawn = density_histogram([0.0, 0.0, 0.001, 0.01, 0.01, 1.0])
    assert sum(bar.count for bar in drawn.bars) == 6
    assert [bar.count for bar in drawn.bars if bar.is_special] == [2]
    assert drawn.summary.startswith("6 latents: 2 never fired")


@pytest.mark.parametrize("values", [[], [1.0], [1.0] * 5, [0.0, 0.0]])
def test_histograms_survive_degenerate_values(values: list[float]) -> None:
    for drawn in (density_histogram(values), linear_histogram(values)):
        assert sum(bar.count for bar in drawn.bars) == len(values)
        assert all(bar.height >= 0 and bar.width > 0 for bar in drawn.bars)


def test_mark_outside_the_axis_is_not_drawn() -> None:
    assert linear_histogram([1.0, 2.0], mark=9.0).mark is None
    assert linear_histogram([1.0, 2.0], mark=1.5).mark is not None
