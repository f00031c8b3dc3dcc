"""The throughput that training reports."""

import pytest

from sparsify_core.train.points import RATE_WINDOW_S, Throughput


def test_the_throughput_is_that_of_the_last_seconds() -> None:
    """A minute's compilation, then ten steps a second, then two."""
    throughput = Throughput(100, 0.0)
    assert throughput.after(101, 60.0) == pytest.approx(1 / 60)
    at_s = 60.1
    assert throughput.after(102, at_s) == pytest.approx(10)
    for step in range(103, 302):
        at_s += 0.1
        rate = throughput.after(step, at_s)
    assert rate == pytest.approx(10)
    for step in range(302, 302 + 2 * int(RATE_WINDOW_S) + 1):
        at_s += 0.5
        rate = throughput.after(step, at_s)
    assert rate == pytest.approx(2)


def test_steps_longer_than_the_window_are_counted_one_by_one() -> None:
    throughput = Throughput(0, 5.0)
    assert throughput.after(1, 5.0 + 4 * RATE_WINDOW_S) == pytest.approx(1 / (4 * RATE_WINDOW_S))
    assert throughput.after(2, 5.0 + 6 * RATE_WINDOW_S) == pytest.approx(1 / (2 * RATE_WINDOW_S))
