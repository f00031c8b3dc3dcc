"""`/api/v1/runs`: the happy ways, on both databases."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlmodel import select

from rows import add_attempt, add_point, add_run, add_worker
from server.db.tables import Run, RunState
from server.settings import Settings


def test_a_run_is_queued_and_found_again(api: TestClient, valid: dict[str, Any]) -> None:
    made = api.post("/api/v1/runs", json=valid | {"name": "first \U0001f98a", "num_processes": 2})
    assert made.status_code == 201
    run = api.get(made.headers["location"]).json()
    assert run == made.json()
    assert run["name"] == "first \U0001f98a"
    assert run["state"] == "queued"
    assert run["num_processes"] == 2
    assert run["config"]["model"] == "owner/model"
    assert run["config"]["sae"]["k"] == 32
    history = api.get(f"/api/v1/runs/{run['id']}/events").json()["items"]
    assert [(e["kind"], e["actor"]) for e in history] == [("queued", "token test")]


def test_a_run_without_a_name_gets_one(api: TestClient, valid: dict[str, Any]) -> None:
    for name in (None, "", "  "):
        assert api.post("/api/v1/runs", json=valid | {"name": name}).json()["name"].count("-") == 2


def test_a_run_that_no_worker_could_start_is_queued_with_a_note(
    api: TestClient, app: FastAPI, valid: dict[str, Any]
) -> None:
    with app.state.db.write() as session:
        add_worker(session, num_gpus=1, memory_gb=24)
    asked = {"num_processes": 8, "num_nodes": 2, "min_memory_gb": 23.5, "labels": ["lab", "a100", "lab"]}
    run = api.post("/api/v1/runs", json=valid | asked).json()
    sentence = "cannot start yet: needs a worker labelled a100, lab, and no connected worker has those labels"
    assert run["waits_for"] == sentence
    assert (run["num_nodes"], run["min_memory_bytes"], run["labels"]) == (2, 23_500_000_000, ["a100", "lab"])
    notes = [e for e in api.get(f"/api/v1/runs/{run['id']}/events").json()["items"] if e["kind"] == "warning"]
    assert notes[0]["detail"] == sentence
    assert api.post("/api/v1/runs", json=valid).json()["waits_for"] == ""


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ({"num_nodes": 0}, "num_nodes"),
        ({"min_memory_gb": 0}, "min_memory_gb"),
        ({"labels": ["two words"]}, "labels"),
        ({"min_memory_gb": 24, "config": {"device": "cpu"}}, "min_memory_gb"),
    ],
)
def test_what_no_scheduler_could_read_is_refused_at_its_field(
    api: TestClient, valid: dict[str, Any], asked: dict[str, Any], field: str
) -> None:
    body = valid | asked | {"config": valid["config"] | asked.get("config", {})}
    answer = api.post("/api/v1/runs", json=body)
    assert answer.status_code == 422
    assert field in answer.json()["errors"][0]["loc"]


def test_the_list_pages_without_gaps_while_runs_arrive(api: TestClient, app: FastAPI) -> None:
    with app.state.db.write() as session:
        for n in range(7):
            add_run(session, name=f"r{n}", created_at=1000.0 + n // 2)
    seen, cursor = [], None
    while True:
        page = api.get("/api/v1/runs", params={"limit": 2} | ({"cursor": cursor} if cursor else {})).json()
        seen += [run["name"] for run in page["items"]]
        with app.state.db.write() as session:
            add_run(session, name="newer")
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert sorted(seen) == [f"r{n}" for n in range(7)]


def test_the_list_filters_by_state_and_text(api: TestClient, app: FastAPI) -> None:
    with app.state.db.write() as session:
        add_run(session, name="Alpha 100%")
        add_run(session, name="beta", state=RunState.FAILED)
    names = lambda **q: [r["name"] for r in api.get("/api/v1/runs", params=q).json()["items"]]  # noqa: E731
    assert names(state="failed") == ["beta"]
    assert names(q="ALPHA") == ["Alpha 100%"]
    assert names(q="%") == ["Alpha 100%"]
    assert names(q="owner/mod") == ["beta", "Alpha 100%"]
    assert names(q="_") == []


def test_a_repeated_request_makes_one_run(api: TestClient, app: FastAPI, valid: dict[str, Any]) -> None:
    key = {"Idempotency-Key": "abc"}
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: api.post("/api/v1/runs", json=valid, headers=key), range(24)))
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.json()["id"] for answer in answers}) == 1
    with app.state.db.read() as session:
        assert len(session.exec(select(Run)).all()) == 1
    other = api.post("/api/v1/runs", json=valid | {"name": "other"}, headers=key)
    assert other.status_code == 409
    assert other.json()["code"] == "key_reused"


def test_metrics_come_with_gaps_named_and_long_series_thinned(api: TestClient, app: FastAPI, run_id: str) -> None:
    with app.state.db.write() as session:
        run = session.get_one(Run, run_id)
        add_attempt(session, run, event_seq=1000)
        for n in range(1, 1001):
            add_point(session, run, n, float("nan") if n == 3 else 1 / n)
            add_point(session, run, n, float("inf") if n == 3 else n, key="lr")
    whole = api.get(f"/api/v1/runs/{run_id}/metrics").json()
    assert whole["cursor"] == "1.1000"
    assert set(whole["series"]) == {"fvu/layers.5", "lr"}
    fvu = whole["series"]["fvu/layers.5"]
    assert fvu["steps"] == list(range(1, 1001))
    assert fvu["values"][2] == "nan"
    assert whole["series"]["lr"]["values"][2] == "inf"
    thin = api.get(f"/api/v1/runs/{run_id}/metrics", params={"key": "lr", "max_points": 100}).json()["series"]
    assert list(thin) == ["lr"]
    assert thin["lr"]["width"] == 16
    assert thin["lr"]["steps"] == [*range(15, 1000, 16), 1000]
    assert thin["lr"]["min"] == [1, *range(16, 1000, 16)]


def test_the_log_is_read_by_offset_as_plain_text(
    api: TestClient, app: FastAPI, settings: Settings, run_id: str
) -> None:
    with app.state.db.write() as session:
        add_attempt(session, session.get_one(Run, run_id))
    assert api.get(f"/api/v1/runs/{run_id}/log").json() == {"attempt": 1, "offset": 0, "next_offset": 0, "text": ""}
    path = settings.run_dir(run_id).log(1)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"\x1b[31mred\x1b[0m\n\xff\xfe ok\x00\n10%\r20%\rhalf a l")
    first = api.get(f"/api/v1/runs/{run_id}/log").json()
    assert first["text"] == "red\n\ufffd\ufffd ok\n10%\n20%\n"
    with path.open("ab") as file:
        file.write(b"ine\n")
    second = api.get(f"/api/v1/runs/{run_id}/log", params={"offset": first["next_offset"]}).json()
    assert second["text"] == "half a line\n"
    path.write_bytes(b"".join(b"line %06d\n" % n for n in range(1000)))
    tail = api.get(f"/api/v1/runs/{run_id}/log", params={"limit": 1005}).json()
    assert tail["text"].splitlines()[0] == "line 000917"
    assert tail["text"].endswith("line 000999\n")


def test_the_form_can_be_built_from_the_fields(api: TestClient) -> None:
    fields = {f["name"]: f for f in api.get("/api/v1/config/fields").json()["items"]}
    assert fields["sae.k"]["minimum"] == 1
    assert fields["optimizer"]["choices"] == ["adam", "muon", "signum"]
    assert fields["lr"]["nullable"] is True
    assert "save_dir" not in fields


def test_text_that_no_row_can_hold_is_no_defect(api: TestClient, run_id: str) -> None:
    refused = api.get("/api/v1/runs", params={"q": "a\x00b"})
    assert (refused.status_code, refused.json()["errors"][0]["loc"]) == (422, ["query", "q"])
    assert api.get("/api/v1/runs", params={"q": "\U0001f98a"}).json()["items"] == []
    assert api.get(f"/api/v1/runs/{run_id}/metrics", params={"key": "a\x00b"}).json()["series"] == {}
    assert api.get("/api/v1/runs/a%00b").status_code == 404
    assert api.get("/runs", params={"q": "a\x00b"}).status_code == 200
