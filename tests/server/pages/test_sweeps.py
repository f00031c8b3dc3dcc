"""The pages of sweeps: what they show before, while and after its runs train, and that they end them all."""

import re
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from server.db.tables import Run
from server.pages.scatter import Point, scatter


@pytest.fixture
def sweep(visitor: TestClient, valid: dict[str, Any]) -> dict[str, Any]:
    """Four queued runs over k and the optimizer."""
    axes = [{"field": "sae.k", "values": [32, 16]}, {"field": "optimizer", "values": ["adam", "signum"]}]
    answer = visitor.post("/api/v1/sweeps", json={"base": valid | {"name": "fox"}, "axes": axes})
    made: dict[str, Any] = answer.json()
    return made


def labels(page: str) -> list[str]:
    return re.findall(r'<a href="/runs/\w{26}" title="[^"]*">([^<]*)</a>', page)


def test_no_sweep_teaches(visitor: TestClient) -> None:
    assert "Find the best trade-off in one go" in visitor.get("/sweeps").text


def test_the_list_counts_runs_by_state(visitor: TestClient, sweep: dict[str, Any]) -> None:
    page = visitor.get("/sweeps").text
    assert f'href="/sweeps/{sweep["id"]}">fox<' in page
    assert "4 queued" in page


def test_a_sweep_shows_its_runs_and_the_frontier(app: FastAPI, visitor: TestClient, sweep: dict[str, Any]) -> None:
    path = f"/sweeps/{sweep['id']}"
    page = visitor.get(path).text
    assert "As soon as runs train" in page
    assert labels(page) == [f"k={k} optimizer={name}" for k in (32, 16) for name in ("adam", "signum")]
    ids = [run["id"] for run in sweep["runs"]]
    assert f'of the sweep <a href="{path}">fox</a>' in visitor.get(f"/runs/{ids[0]}").text

    with app.state.db.write() as session:
        for run_id, (l0, fvu) in zip(ids, [(32.0, 0.2), (32.0, 0.25), (16.0, 0.3)], strict=False):
            session.get_one(Run, run_id).latest = {"l0/layers.5": l0, "fvu/layers.5": fvu}
    page = visitor.get(path).text
    dots = re.findall(r'<a href="/runs/(\w{26})" aria-label="[^"]*"><circle( class="best")?', page)
    assert sorted(dots) == sorted([(ids[0], ' class="best"'), (ids[1], ""), (ids[2], ' class="best"')])
    assert page.count("on the frontier") == 2
    by_fvu = labels(visitor.get(path, params={"sort": "fvu"}).text)
    assert by_fvu == ["k=32 optimizer=adam", "k=32 optimizer=signum", "k=16 optimizer=adam", "k=16 optimizer=signum"]
    down = labels(visitor.get(path, params={"sort": "-fvu"}, headers={"HX-Request": "true"}).text)
    assert down == [*reversed(by_fvu[:3]), by_fvu[3]]
    assert labels(visitor.get(path, params={"sort": "sae.k"}).text)[0] == "k=16 optimizer=adam"
    assert visitor.get(path, params={"sort": "nonsense"}).status_code == 200


def test_a_sweep_is_cancelled_as_a_whole(visitor: TestClient, sweep: dict[str, Any]) -> None:
    answer = visitor.post(f"/sweeps/{sweep['id']}/cancel")
    assert answer.headers["location"] == f"/sweeps/{sweep['id']}"
    page = visitor.get(answer.headers["location"]).text
    assert "4 cancelled" in page
    assert "Cancel all" not in page


def test_a_plot_spans_its_points_on_linear_and_log_axes() -> None:
    assert scatter([]) is None
    one = scatter([Point(3.0, 0.0, "", "")])
    assert one is not None
    assert one.x_ticks
    many = scatter([Point(x, y, "", "") for x, y in ((4.0, 0.5), (64.0, 0.1), (64.0, 0.4))])
    assert many is not None
    assert [text for _, text in many.x_ticks] == ["5", "10", "20", "50"]
    assert [text for _, text in many.y_ticks] == ["0.1", "0.2", "0.3", "0.4", "0.5"]
    assert all(many.left < dot.x < many.right and many.top < dot.y < many.base for dot in many.dots)
    assert len(many.line.split()) == 2


@pytest.mark.parametrize(
    ("axes", "more"),
    [
        (
            [
                {"field": "hookpoints", "values": [["layers.3", "layers.5"], ["layers.7"]]},
                {"field": "sae.transcode", "values": [True, False]},
                {"field": "lr", "values": [0.00123456789, None]},
                {"field": "optimizer", "values": ["adam", "signum"]},
            ],
            {},
        ),
        ([{"field": "lr", "low": 0.0001, "high": 0.01, "scale": "log"}], {"draws": 3, "seed": 7}),
    ],
)
def test_a_sweep_is_repeated_from_the_form(
    visitor: TestClient, valid: dict[str, Any], axes: list[dict[str, Any]], more: dict[str, int]
) -> None:
    made = visitor.post("/api/v1/sweeps", json={"base": valid | {"name": "fox"}, "axes": axes} | more).json()
    page = visitor.get(f"/sweeps/{made['id']}").text
    assert f'href="/runs/new?sweep={made["id"]}"' in page
    assert f"/compare?run={made['runs'][0]['id']}&amp;run=" in page
    form = visitor.get(f"/runs/new?sweep={made['id']}").text
    assert 'name="name" value="fox copy"' in form
    fields = re.findall(r'name="sweep.field">.*?</select>', form, re.S)
    chosen = [re.search("<option selected>([^<]+)", field) for field in fields]
    texts = re.findall(r'name="sweep.values"[^>]*>([^<]*)</textarea>', form)
    sent = {"sweep.field": [found[1] if found else "" for found in chosen], "sweep.values": texts}
    sent |= {f"sweep.{name}": str(value) for name, value in more.items()}
    config = {"config.model": valid["config"]["model"], "config.dataset": valid["config"]["dataset"]}
    again = visitor.post("/runs/new", data=config | sent).headers["location"].rpartition("/")[2]
    repeated = visitor.get(f"/api/v1/sweeps/{again}").json()
    assert [run["values"] for run in repeated["runs"]] == [run["values"] for run in made["runs"]]


def test_what_the_form_cannot_write_is_named_and_not_guessed(visitor: TestClient, valid: dict[str, Any]) -> None:
    axes = [{"field": "sae.k", "values": [4, 8]}, {"field": "revision", "values": ["main", None]}]
    made = visitor.post("/api/v1/sweeps", json={"base": valid, "axes": axes}).json()
    form = visitor.get(f"/runs/new?sweep={made['id']}").text
    texts = re.findall(r'name="sweep.values"[^>]*>([^<]*)</textarea>', form)
    assert texts[:2] == ["4 8", ""]
    assert "The values of revision cannot be written here" in form


def test_more_fields_than_three_are_asked_for(visitor: TestClient) -> None:
    page = visitor.get("/runs/new").text
    assert page.count('name="sweep.field"') == 3
    rows = {"sweep.field": ["sae.k", "", ""], "sweep.values": ["8", "", ""]}
    assert visitor.post("/runs/new/sweep", data=rows | {"sweep.more": "true"}).text.count('name="sweep.field"') == 4
    rows = {"sweep.field": [""] * 8, "sweep.values": [""] * 8}
    full = visitor.post("/runs/new/sweep", data=rows | {"sweep.more": "true"}).text
    assert (full.count('name="sweep.field"'), "Another field" in full) == (8, False)
