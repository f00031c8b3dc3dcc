"""`/api/v1/sweeps`: planned, made as a whole or not at all, looked at, and ended, on both databases."""

from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlmodel import select

from server.db.tables import Run, Sweep


@pytest.fixture
def body(valid: dict[str, Any]) -> dict[str, Any]:
    axes = [{"field": "sae.k", "values": [16, 32, 64]}, {"field": "optimizer", "values": ["adam", "signum"]}]
    return {"base": valid | {"name": "fox", "num_processes": 2}, "axes": axes}


def test_a_plan_queues_nothing(api: TestClient, body: dict[str, Any]) -> None:
    answer = api.post("/api/v1/sweeps/plan", json=body)
    assert answer.status_code == 200
    plan = answer.json()
    assert plan["num_runs"] == 6
    first = {"name": "fox k=16 optimizer=adam", "values": {"sae.k": 16, "optimizer": "adam"}}
    assert plan["runs"][0] == first
    assert api.get("/api/v1/runs").json()["items"] == []
    assert api.get("/api/v1/sweeps").json() == {"items": [], "next_cursor": None}


def test_a_sweep_is_made_looked_at_and_cancelled(api: TestClient, app: FastAPI, body: dict[str, Any]) -> None:
    answer = api.post("/api/v1/sweeps", json=body)
    assert answer.status_code == 201
    made = answer.json()
    assert answer.headers["location"] == f"/api/v1/sweeps/{made['id']}"
    assert (made["num_runs"], made["states"]) == (6, {"queued": 6})
    assert [run["values"]["sae.k"] for run in made["runs"]] == [16, 16, 32, 32, 64, 64]
    run = api.get(f"/api/v1/runs/{made['runs'][3]['id']}").json()
    assert (run["sweep_id"], run["num_processes"], run["name"]) == (made["id"], 2, "fox k=32 optimizer=signum")
    assert (run["config"]["sae"]["k"], run["config"]["optimizer"]) == (32, "signum")

    measured = {0: (16.0, 0.4), 1: (16.0, 0.3), 2: (32.0, 0.35), 3: (31.0, 0.2)}
    with app.state.db.write() as session:
        for place, (l0, fvu) in measured.items():
            row = session.get_one(Run, made["runs"][place]["id"])
            row.latest = {"l0/layers.5": l0, "fvu/layers.5": 0.9, "eval_fvu/a": fvu - 0.1, "eval_fvu/b": fvu + 0.1}
    seen = api.get(f"/api/v1/sweeps/{made['id']}").json()
    assert seen["runs"][1]["fvu"] == pytest.approx(0.3)
    assert seen["runs"][5]["fvu"] is None
    assert seen["frontier"] == {"fvu": [made["runs"][1]["id"], made["runs"][3]["id"]], "delta_ce": []}

    ended = api.post(f"/api/v1/sweeps/{made['id']}/cancel")
    assert {one["state"] for one in ended.json()["items"]} == {"cancelled"}
    assert api.get("/api/v1/sweeps").json()["items"][0]["states"] == {"cancelled": 6}
    assert api.post(f"/api/v1/sweeps/{made['id']}/cancel").json() == {"items": []}


def test_one_bad_run_means_no_run(api: TestClient, app: FastAPI, body: dict[str, Any]) -> None:
    body["axes"][1] = {"field": "model", "values": ["owner/model", "/etc/passwd"]}
    answer = api.post("/api/v1/sweeps", json=body)
    assert answer.status_code == 422
    errors = answer.json()["errors"]
    assert [error["loc"] for error in errors] == [["runs", n, "config", "model"] for n in (1, 3, 5)]
    assert errors[0]["msg"].startswith("k=16 model=/etc/passwd: ")
    with app.state.db.read() as session:
        assert session.exec(select(Run)).all() == []
        assert session.exec(select(Sweep)).all() == []


def test_a_repeated_key_makes_one_sweep(api: TestClient, body: dict[str, Any]) -> None:
    first, second = (api.post("/api/v1/sweeps", json=body, headers={"Idempotency-Key": "a"}) for _ in range(2))
    assert first.json() == second.json()
    assert len(api.get("/api/v1/runs").json()["items"]) == 6
    body["axes"].pop()
    assert api.post("/api/v1/sweeps", json=body, headers={"Idempotency-Key": "a"}).status_code == 409


def test_the_list_has_pages(sqlite_api: TestClient, body: dict[str, Any]) -> None:
    body["axes"] = [{"field": "sae.k", "values": [8]}]
    ids = sorted((sqlite_api.post("/api/v1/sweeps", json=body).json()["id"] for _ in range(3)), reverse=True)
    first = sqlite_api.get("/api/v1/sweeps?limit=2").json()
    assert [one["id"] for one in first["items"]] == ids[:2]
    rest = sqlite_api.get("/api/v1/sweeps", params={"limit": 2, "cursor": first["next_cursor"]}).json()
    assert ([one["id"] for one in rest["items"]], rest["next_cursor"]) == (ids[2:], None)


def test_a_sweep_that_is_not_there(sqlite_api: TestClient) -> None:
    assert sqlite_api.get("/api/v1/sweeps/01").status_code == 404
    assert sqlite_api.post("/api/v1/sweeps/" + "0" * 26 + "/cancel").status_code == 404


def test_a_sweep_without_a_name_gets_one(sqlite_api: TestClient, body: dict[str, Any]) -> None:
    del body["base"]["name"]
    made = sqlite_api.post("/api/v1/sweeps", json=body).json()
    assert made["runs"][0]["name"] == f"{made['name']} k=16 optimizer=adam"
