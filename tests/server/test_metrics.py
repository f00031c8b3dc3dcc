"""Series over HTTP: buckets that stay where they are, ranges, and several runs on one grid."""

from typing import Any

from fastapi import FastAPI
from fastapi.testclient import TestClient

from rows import add_attempt, add_point, add_run
from server.db.series import seal_chunk
from server.db.tables import Run

NAN, INF = float("nan"), float("inf")
FVU = "fvu/layers.5"


def run_of(app: FastAPI, values: list[float], *, key: str = FVU) -> str:
    """A run with these values at steps 1, 2, ..."""
    with app.state.db.write() as session:
        run = add_run(session)
        add_attempt(session, run, event_seq=len(values))
        for step, value in enumerate(values, start=1):
            add_point(session, run, step, value, key=key)
        return run.id


def append(app: FastAPI, run_id: str, steps: range) -> None:
    with app.state.db.write() as session:
        for step in steps:
            add_point(session, session.get_one(Run, run_id), step, float(step))


def fvu(api: TestClient, run_id: str, **params: Any) -> dict[str, Any]:
    answer = api.get(f"/api/v1/runs/{run_id}/metrics", params={"key": FVU, **params})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()["series"].get(FVU, {})
    return found


def test_a_bucket_has_its_last_point_and_its_extremes(api: TestClient, app: FastAPI) -> None:
    run_id = run_of(app, [5, 1, NAN, 2, 9, INF, NAN, NAN, NAN, -INF, NAN])
    assert fvu(api, run_id, max_points=4) == {
        "width": 4,
        "steps": [3, 7, 11],
        "values": ["nan", "nan", "nan"],
        "ts": [3.0, 7.0, 11.0],
        "min": [1.0, 2.0, None],
        "max": [5.0, 9.0, None],
    }
    raw = fvu(api, run_id, max_points=11)
    assert (raw["width"], raw["min"], raw["max"]) == (1, None, None)
    assert raw["values"] == [5, 1, "nan", 2, 9, "inf", "nan", "nan", "nan", "-inf", "nan"]


def test_points_that_come_later_change_the_last_bucket_alone(api: TestClient, app: FastAPI) -> None:
    run_id = run_of(app, [float(step) for step in range(1, 70)])
    before = fvu(api, run_id, max_points=20)
    append(app, run_id, range(70, 76))
    after = fvu(api, run_id, max_points=20)
    assert (before["width"], after["width"]) == (4, 4)
    for name in ("steps", "values", "ts", "min", "max"):
        assert after[name][: len(before[name]) - 1] == before[name][:-1]
    append(app, run_id, range(76, 160))
    assert fvu(api, run_id, max_points=20)["width"] == 8


def test_a_range_gives_whole_buckets_and_points_once_they_fit(api: TestClient, app: FastAPI) -> None:
    run_id = run_of(app, [float(step) for step in range(1, 101)])
    part = fvu(api, run_id, start=10, end=41, max_points=10)
    assert part["width"] == 4
    assert part["steps"] == [11, 15, 19, 23, 27, 31, 35, 39, 43]
    assert part["min"][0] == 8
    assert fvu(api, run_id, start=10, end=12, max_points=10)["steps"] == [10, 11, 12]
    assert fvu(api, run_id, start=500) == {}
    assert api.get(f"/api/v1/runs/{run_id}/metrics", params={"start": -1}).status_code == 422


def test_rare_points_are_all_kept_however_far_apart(api: TestClient, app: FastAPI) -> None:
    run_id = run_of(app, [])
    with app.state.db.write() as session:
        for step in range(1000, 50_000, 1000):
            add_point(session, session.get_one(Run, run_id), step, 0.5)
    assert fvu(api, run_id, max_points=50)["width"] == 1
    assert fvu(api, run_id, max_points=40)["width"] == 2048


def test_runs_are_compared_on_one_grid(api: TestClient, app: FastAPI) -> None:
    long, short = run_of(app, [1.0] * 100), run_of(app, [2.0] * 7)
    params: dict[str, Any] = {"run": [long, short, long], "key": [FVU, "lr"], "max_points": 30}
    answer = api.get("/api/v1/metrics", params=params).json()["series"]
    assert list(answer) == [long, short]
    assert {series["width"] for of_run in answer.values() for series in of_run.values()} == {4}
    assert answer[short] == {
        FVU: {"width": 4, "steps": [3, 7], "values": [2, 2], "ts": [3, 7], "min": [2, 2], "max": [2, 2]}
    }
    assert api.get("/api/v1/metrics", params={"run": "0" * 26, "key": FVU}).status_code == 404
    assert api.get("/api/v1/metrics", params={"run": [long] * 51, "key": FVU}).status_code == 422
    assert api.get("/api/v1/metrics", params={"run": long}).status_code == 422


def test_more_points_than_an_answer_holds_are_refused_with_what_to_do(api: TestClient, app: FastAPI) -> None:
    ids, keys = [run_of(app, [1.0]) for _ in range(2)], [f"key {number}" for number in range(100)]
    answer = api.get("/api/v1/metrics", params={"run": ids, "key": keys, "max_points": 10_001})
    assert answer.status_code == 422
    assert "ask for max_points=10000, or for fewer series" in answer.json()["detail"]
    assert api.get("/api/v1/metrics", params={"run": ids, "key": keys, "max_points": 10_000}).status_code == 200
    alone = {"key": [*keys, "another"], "max_points": 20_000}
    assert api.get(f"/api/v1/runs/{ids[0]}/metrics", params=alone).status_code == 422


def test_a_run_with_thousands_of_series_gives_all_of_them_at_fewer_points(api: TestClient, app: FastAPI) -> None:
    run_id = run_of(app, [])
    with app.state.db.write() as session:
        run = session.get_one(Run, run_id)
        for layer in range(2001):
            add_point(session, run, 1, 0.5, key=f"fvu/{layer}")
    answer = api.get(f"/api/v1/runs/{run_id}/metrics")
    assert answer.status_code == 422
    assert "2,001 series of 1,500 points" in answer.json()["detail"]
    answer = api.get(f"/api/v1/runs/{run_id}/metrics", params={"max_points": 999})
    assert len(answer.json()["series"]) == 2001


def test_every_point_comes_as_csv_sealed_or_not(api: TestClient, app: FastAPI) -> None:
    run_id = run_of(app, [5, NAN, 2, 1])
    with app.state.db.write() as session:
        seal_chunk(session, run_id, FVU, 1)
        for step in (2, 3):
            add_point(session, session.get_one(Run, run_id), step, 100.0 * step, key="tokens")
    append(app, run_id, range(5, 6))
    answer = api.get(f"/api/v1/runs/{run_id}/metrics.csv", params={"key": FVU})
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert answer.text.splitlines() == [
        "key,step,tokens,ts,value",
        f"{FVU},1,,1.0,5.0",
        f"{FVU},2,200,2.0,nan",
        f"{FVU},3,300,3.0,2.0",
        f"{FVU},4,,4.0,1.0",
        f"{FVU},5,,5.0,5.0",
    ]
    everything = api.get(f"/api/v1/runs/{run_id}/metrics.csv").text.splitlines()
    assert everything[-2:] == ["tokens,2,200,2.0,200.0", "tokens,3,300,3.0,300.0"]
    assert api.get("/api/v1/runs/none/metrics.csv").status_code == 404
