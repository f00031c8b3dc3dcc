"""The frontier holds exactly the points that no other one dominates, in any number of dimensions."""

import math

from hypothesis import given
from hypothesis import strategies as st

from server.services.pareto import frontier

POINTS = st.integers(1, 4).flatmap(
    lambda size: st.lists(st.lists(st.integers(0, 6).map(float), min_size=size, max_size=size), max_size=30)
)


def dominates(one: list[float], other: list[float]) -> bool:
    return all(a <= b for a, b in zip(one, other, strict=True)) and any(a < b for a, b in zip(one, other, strict=True))


@given(POINTS)
def test_a_point_is_on_the_frontier_unless_another_one_dominates_it(points: list[list[float]]) -> None:
    wanted = {i for i, point in enumerate(points) if not any(dominates(other, point) for other in points)}
    found = frontier(points)
    assert set(found) == wanted
    assert len(found) == len(wanted)
    assert [points[i][0] for i in found] == sorted(points[i][0] for i in wanted)


def test_points_without_a_number_are_left_out() -> None:
    assert frontier([(1.0, None), (math.nan, 0.0), (2.0, math.inf), (3.0, 1.0), (3.0, 1.0)]) == [3, 4]
    assert frontier([]) == []
