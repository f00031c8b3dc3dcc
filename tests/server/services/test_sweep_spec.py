"""The runs of a sweep: as many as asked for, all different, the same ones every time; bad ones are named."""

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from server.errors import InvalidError
from server.services.sweep_spec import MAX_RUNS, SweepRequest, expand

BASE = {"name": "fox", "config": {"model": "owner/model", "dataset": "owner/data"}}
CHOICES: dict[str, list[Any]] = {
    "sae.k": [8, 16, 32, 64],
    "lr": [1e-4, 3e-4, 1e-3, None],
    "optimizer": ["adam", "muon", "signum"],
    "sae.multi_topk": [False, True],
    "hookpoints": [["layers.3"], ["layers.3", "layers.5"], []],
}
AXES = st.lists(st.sampled_from(sorted(CHOICES)), unique=True, min_size=1, max_size=4).flatmap(
    lambda names: st.tuples(
        *(
            st.lists(st.sampled_from(CHOICES[name]), min_size=1, max_size=3, unique_by=repr).map(
                lambda values, name=name: {"field": name, "values": values}
            )
            for name in names
        )
    )
)


def sweep(axes: Any, **more: Any) -> SweepRequest:
    return SweepRequest.model_validate({"base": BASE, "axes": list(axes)} | more)


@settings(max_examples=30, deadline=None)
@given(AXES)
def test_a_grid_has_every_combination_once(axes: tuple[dict[str, Any], ...]) -> None:
    planned = expand(sweep(axes))
    assert len(planned) == math.prod(len(axis["values"]) for axis in axes)
    assert len({str(one.values) for one in planned}) == len({one.request.name for one in planned}) == len(planned)
    for one in planned:
        config = one.request.config.model_dump()
        flat = config | {f"sae.{name}": value for name, value in config["sae"].items()}
        assert {name: flat[name] for name in one.values} == one.values
        others = {name for name in flat if name not in one.values and name != "sae"}
        default = sweep(axes).base.config.model_dump()
        default |= {f"sae.{name}": value for name, value in default["sae"].items()}
        assert all(flat[name] == default[name] for name in others)


@settings(max_examples=30, deadline=None)
@given(
    st.integers(1, 40),
    st.integers(0, 2**32 - 1),
    st.floats(1e-6, 1e-2),
    st.floats(1.5, 100),
    st.sampled_from(["linear", "log"]),
)
def test_draws_are_many_different_and_within_bounds(
    draws: int, seed: int, low: float, factor: float, scale: str
) -> None:
    axes = [
        {"field": "lr", "low": low, "high": low * factor, "scale": scale},
        {"field": "sae.k", "low": 4, "high": 512, "scale": "log"},
        {"field": "optimizer", "values": ["adam", "signum"]},
    ]
    planned = expand(sweep(axes, draws=draws, seed=seed))
    assert len({str(one.values) for one in planned}) == draws == len(planned)
    assert all(low <= one.values["lr"] <= low * factor and 4 <= one.values["sae.k"] <= 512 for one in planned)
    assert planned == expand(sweep(axes, draws=draws, seed=seed))


def test_the_name_says_what_differs() -> None:
    axes = [{"field": "sae.k", "values": [64]}, {"field": "lr", "values": [0.001, 5e-5]}]
    assert [one.request.name for one in expand(sweep(axes))] == ["fox k=64 lr=0.001", "fox k=64 lr=5e-05"]


def test_a_long_name_keeps_what_differs() -> None:
    long = SweepRequest.model_validate(
        {"base": BASE | {"name": "x" * 200}, "axes": [{"field": "sae.k", "values": [8]}]}
    )
    name = expand(long)[0].request.name or ""
    assert name.endswith("x k=8")
    assert len(name) == 200


@pytest.mark.parametrize(
    ("axes", "more", "says"),
    [
        ([{"field": "k", "values": [1]}], {}, "'k' is no field"),
        ([{"field": "run_name", "values": ["a"]}], {}, "no field"),
        ([{"field": "lr"}], {}, "either values, or low and high"),
        ([{"field": "lr", "values": [1.0], "low": 0.1, "high": 1}], {}, "either values, or low and high"),
        ([{"field": "lr", "values": [0.1, 0.2, 0.1]}], {}, "0.1 stands there twice"),
        ([{"field": "lr", "low": 1, "high": 0.1}], {"draws": 3}, "not less than"),
        ([{"field": "lr", "low": 0, "high": 0.1, "scale": "log"}], {"draws": 3}, "above 0"),
        ([{"field": "optimizer", "low": 0, "high": 1}], {"draws": 3}, "no number"),
        ([{"field": "lr", "low": 0.1, "high": 1}], {}, "how many runs to draw"),
        ([{"field": "lr", "values": [0.1]}, {"field": "lr", "values": [0.2]}], {}, "varies twice"),
        ([{"field": "shuffle_seed", "values": list(range(60))}, {"field": "sae.k", "values": [*range(1, 10)]}], {},
         f"540 runs, the most is {MAX_RUNS}"),
        ([], {}, "at least 1 item"),
        ([{"field": "lr", "values": [0.1]}], {"draws": 501}, "less than or equal to 500"),
    ],
)  # fmt: skip
def test_what_makes_no_sweep_is_refused(axes: list[dict[str, Any]], more: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        sweep(axes, **more)


def test_every_run_that_is_not_valid_is_named() -> None:
    axes = [{"field": "sae.k", "values": [8, 99, 77]}, {"field": "sae.num_latents", "values": [64, 4096]}]
    with pytest.raises(InvalidError) as caught:
        expand(sweep(axes))
    assert [problem.loc[:2] for problem in caught.value.errors] == [("runs", 2), ("runs", 4)]
    assert caught.value.detail.startswith("k=99 num_latents=64: k = 99 is more than num_latents = 64")


def test_values_are_of_the_type_of_the_field() -> None:
    with pytest.raises(InvalidError, match=r"k=8: .*valid integer"):
        expand(sweep([{"field": "sae.k", "values": ["8"]}]))


def test_a_space_that_is_too_small_is_told() -> None:
    with pytest.raises(InvalidError, match="only 2 different combinations"):
        expand(sweep([{"field": "sae.k", "low": 4, "high": 5}], draws=3))
