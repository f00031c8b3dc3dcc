"""Where a step's time goes: drawn, on the run's page, and over the API."""

import re

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from rows import add_run, add_timing
from server.db.tables import RunState, StepTiming
from server.numbers import milliseconds, percent
from server.pages.waterfall import NUM_RECENT, waterfall
from sparsify_core.config import RunConfig


def timing(step: int, parts_ms: dict[str, float], floor_ms: dict[str, float] | None = None) -> StepTiming:
    total = sum(parts_ms.values())
    return StepTiming(
        run_id="r", attempt=1, seq=step, step=step, ts=step, total_ms=total, parts_ms=parts_ms, floor_ms=floor_ms
    )


def test_nothing_is_drawn_of_nothing() -> None:
    assert waterfall([]) is None


def test_parts_stand_in_the_order_of_a_step_and_fill_the_longest_bar() -> None:
    drawn = waterfall([timing(6, {"optimizer": 1.0, "new": 1.0, "lm": 6.0, "data": 2.0, "select": 0.001})])
    assert drawn is not None
    (bar,) = drawn.bars
    assert [segment.part for segment in bar.segments] == ["data", "lm", "optimizer", "new"]
    assert [segment.x for segment in bar.segments] == pytest.approx([0, 20, 80, 90], abs=0.1)
    assert bar.segments[-1].x + bar.segments[-1].width == pytest.approx(100, abs=0.1)
    assert [(row.label, row.ms, row.share) for row in drawn.rows[:2]] == [
        ("Data wait", "2.00", "20.0%"),
        ("Language model", "6.00", "60.0%"),
    ]
    assert (drawn.largest.label, drawn.total, drawn.floor) == ("Language model", "10.0", "")


def test_the_median_is_a_measured_step_and_the_newest_stand_below_it() -> None:
    steps = [timing(10 * n, {"lm": float(n % 7 + 1), "other": 1.0}) for n in range(1, 12)]
    drawn = waterfall(steps)
    assert drawn is not None
    totals = sorted(step.total_ms for step in steps)
    assert drawn.total == milliseconds(totals[5])
    assert [bar.label for bar in drawn.bars] == ["Median", *(f"Step {10 * n}" for n in range(11, 11 - NUM_RECENT, -1))]
    assert [bar.is_median for bar in drawn.bars] == [True] + [False] * NUM_RECENT
    longest = max(bar.segments[-1].x + bar.segments[-1].width for bar in drawn.bars)
    assert longest == pytest.approx(100)


@pytest.mark.parametrize(("floor_ms", "floor_x"), [(3.0, 30.0), (20.0, 100.0)])
def test_the_floor_is_marked_on_the_same_scale(floor_ms: float, floor_x: float) -> None:
    """Also one that is beyond the step, as a wrong table of rates would give: nothing leaves the drawing."""
    drawn = waterfall([timing(6, {"lm": 8.0, "other": 2.0}, {"lm": floor_ms})])
    assert drawn is not None
    assert drawn.bars[0].floor_x == pytest.approx(floor_x)
    assert drawn.floor_share == percent(floor_ms / 10)
    assert [row.floor for row in drawn.rows] == [milliseconds(floor_ms), ""]


def test_a_page_says_what_takes_the_time(browser: TestClient, sqlite_app: FastAPI) -> None:
    with sqlite_app.state.db.write() as session:
        run = add_run(session, state=RunState.RUNNING, latest={"lr": 1.0})
        add_timing(session, run, 50, {"lm": 20.0, "backward": 12.4}, {"lm": 12.7, "backward": 0.6})
    page, region = browser.get(f"/runs/{run.id}").text, browser.get(f"/runs/{run.id}/waterfall").text
    assert region in page
    text = " ".join(re.sub(r"<[^>]+>", " ", region).split())
    assert "The largest part: Language model , 61.7% of 32.4 ms." in text
    assert "at least 13.3 ms for a step, which is 41.0% of that time" in text
    assert "Backward 12.4 38.3% 0.60" in text
    assert "style=" not in region


@pytest.mark.parametrize(
    ("state", "every", "told"),
    [
        (RunState.QUEUED, 20, "first measurement comes at step 6, when training is warm, then one every 20 steps"),
        (RunState.RUNNING, 0, "<code>waterfall_every</code> is 0"),
        (RunState.CANCELLED, 20, "ended before its first measurement"),
    ],
)
def test_without_a_measurement_the_page_says_when_there_is_one(
    browser: TestClient, sqlite_app: FastAPI, state: RunState, every: int, told: str
) -> None:
    with sqlite_app.state.db.write() as session:
        config = RunConfig(waterfall_every=every).model_dump(mode="json")
        run = add_run(session, state=state, config=config, latest={"lr": 1.0})
    assert told in browser.get(f"/runs/{run.id}").text


def test_a_run_that_never_trained_shows_no_empty_box(browser: TestClient, sqlite_app: FastAPI) -> None:
    with sqlite_app.state.db.write() as session:
        run = add_run(session, state=RunState.FAILED)
    assert "waterfall-title" not in browser.get(f"/runs/{run.id}").text


def test_the_api_gives_the_newest_measurements_in_order(api: TestClient, app: FastAPI) -> None:
    with app.state.db.write() as session:
        run = add_run(session)
        for step in (6, 50, 100):
            add_timing(session, run, step, {"lm": 2.0, "other": 1.0}, {"lm": 0.5} if step == 100 else None)
    items = api.get(f"/api/v1/runs/{run.id}/timings", params={"limit": 2}).json()["items"]
    assert [item["step"] for item in items] == [50, 100]
    assert items[0] == {
        "attempt": 1,
        "step": 50,
        "ts": 50.0,
        "total_ms": 3.0,
        "parts_ms": {"lm": 2.0, "other": 1.0},
        "floor_ms": None,
    }
    assert items[1]["floor_ms"] == {"lm": 0.5}
    assert api.get("/api/v1/runs/nothing/timings").status_code == 404
