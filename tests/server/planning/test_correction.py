"""What past runs teach."""

import math
import random

import pytest

from server.planning import PRIOR, learn


def test_without_past_runs_arithmetic_stands_with_wide_bars() -> None:
    alone = learn([], prior=PRIOR)
    assert (alone.factor, alone.num_runs) == (1, 0)
    found = alone.apply(1000)
    assert found.expected == 1000
    assert found.low < 600 < 1700 < found.high


def test_one_run_moves_the_middle_and_many_narrow_the_bars() -> None:
    one, many = learn([0.5], prior=PRIOR), learn([0.5] * 20, prior=PRIOR)
    assert one.factor == many.factor == 0.5
    assert many.deviation < one.deviation / 2 < PRIOR


def test_one_odd_run_counts_for_one() -> None:
    assert learn([0.8, 0.8, 0.8, 0.8, 40.0], prior=PRIOR).factor == pytest.approx(0.8)


def test_numbers_that_no_run_can_have_are_left_out() -> None:
    assert learn([0.0, math.nan, math.inf, -1.0, 2.0], prior=PRIOR).num_runs == 1


def test_eight_of_ten_runs_lie_between_the_bars() -> None:
    """Runs whose logarithms scatter by 0.2 around a factor of 1.5: the next one, many times."""
    draw = random.Random(0)
    inside = 0
    for _ in range(1000):
        ratios = [1.5 * math.exp(draw.gauss(0, 0.2)) for _ in range(31)]
        found = learn(ratios[1:], prior=PRIOR).apply(100)
        inside += found.low <= 100 * ratios[0] <= found.high
    assert 0.75 < inside / 1000 < 0.9
