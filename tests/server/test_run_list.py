"""The list of runs: searched, sorted, paged, changed in bulk; on both databases."""

import base64
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from rows import add_run
from server.db.tables import RunState
from server.db.tables.values import store_metrics
from sparsify_core.config import RunConfig

RUNS: dict[str, dict[str, Any]] = {
    "alpha": {"k": 16, "model": "openai-community/gpt2", "fvu": 0.3, "state": RunState.RUNNING, "tags": ["paper"]},
    "beta": {"k": 32, "model": "gpt2", "fvu": 0.1, "state": RunState.COMPLETED, "tags": ["draft", "paper/v2"]},
    "gamma": {
        "k": 64,
        "model": "EleutherAI/pythia-160m",
        "fvu": None,
        "state": RunState.QUEUED,
        "transcode": True,
        "notes": "à l'École",
    },
    "délta 100%": {
        "k": 64,
        "model": "Owner/model",
        "fvu": 0.2,
        "state": RunState.FAILED,
        "tags": ["ébauche"],
        "notes": "Diverged Early",
    },
    "hidden": {"k": 8, "model": "gpt2", "fvu": 0.4, "state": RunState.COMPLETED, "archived_at": 5.0},
}


@pytest.fixture
def ids(api: TestClient, app: FastAPI) -> dict[str, str]:
    """By name; made a day apart from 1 November 2026 on."""
    with app.state.db.write() as session:
        found = {}
        for number, (name, given) in enumerate(RUNS.items()):
            values = dict(given)
            sae = {"k": values.pop("k"), "transcode": values.pop("transcode", False)}
            config = RunConfig(model=values.pop("model"), dataset="owner/data", hookpoints=["layers.5"], sae=sae)
            fvu = values.pop("fvu")
            latest = {} if fvu is None else {"fvu/a": fvu - 0.05, "fvu/b": fvu + 0.05, "auxk/a": "nan"}
            made = {"created_at": 1_793_491_200.0 + 86_400 * number, "config": config.model_dump(mode="json")}
            found[name] = add_run(session, name=name, latest=latest, **made, **values).id
    return found


def listed(api: TestClient, **query: Any) -> list[str]:
    answer = api.get("/api/v1/runs", params=query)
    assert answer.status_code == 200, answer.text
    return [run["name"] for run in answer.json()["items"]]


@pytest.mark.parametrize(
    ("q", "names"),
    [
        ("", {"alpha", "beta", "gamma", "délta 100%"}),
        ("GPT2", {"alpha", "beta"}),
        ("école", {"gamma"}),
        ("ÉCOLE", {"gamma"}),
        ("notes:e\u0301cole", {"gamma"}),
        ("name:DÉLTA", {"délta 100%"}),
        ("tag:Ébauche", {"délta 100%"}),
        ("model=OWNER/MODEL", {"délta 100%"}),
        ('notes="à l\'École"', {"gamma"}),
        ("model=gpt2", {"beta"}),
        ("model:gpt2 k>16", {"beta"}),
        ("k:16,64 -state:queued", {"alpha", "délta 100%"}),
        ("sae.k>=64", {"gamma", "délta 100%"}),
        ("-k!=32", {"beta"}),
        ("state:running,failed", {"alpha", "délta 100%"}),
        ("transcode:yes", {"gamma"}),
        ("fvu<0.25", {"beta", "délta 100%"}),
        ("fvu<=20%", {"beta", "délta 100%"}),
        ("-fvu<0.25", {"alpha", "gamma"}),
        ("tag:paper", {"alpha"}),
        ("tag:Draft,paper", {"alpha", "beta"}),
        ("-tag:paper -tag:draft", {"gamma", "délta 100%"}),
        ("diverged", {"délta 100%"}),
        ("100%", {"délta 100%"}),
        ("_", set()),
        ("hookpoints:layers.5 dataset:data", {"alpha", "beta", "gamma", "délta 100%"}),
        ("archived:yes", {"hidden"}),
        ("archived:any model:gpt2", {"alpha", "beta", "hidden"}),
        ("created>2026-11-01 created<=2026-11-03", {"beta", "gamma"}),
        ("created:2026-11-02", {"beta"}),
        ("auxk>0", set()),
        ("max_tokens>1M", set()),
    ],
)
def test_searches_find_what_they_say(api: TestClient, ids: dict[str, str], q: str, names: set[str]) -> None:
    assert set(listed(api, q=q)) == names


@pytest.mark.parametrize(
    ("q", "says"),
    [("kk>3", "Did you mean k"), ("state:runing", "queued"), ("k>x", "is a number"), ("model>a", "has no order")],
)
def test_a_wrong_search_says_what_to_write(api: TestClient, ids: dict[str, str], q: str, says: str) -> None:
    answer = api.get("/api/v1/runs", params={"q": q})
    assert answer.status_code == 422
    assert says in answer.json()["detail"]
    assert answer.json()["errors"][0]["loc"] == ["query", "q"]


@pytest.mark.parametrize(
    ("sort", "names"),
    [
        ("fvu", ["beta", "délta 100%", "alpha", "gamma"]),
        ("-fvu", ["alpha", "délta 100%", "beta", "gamma"]),
        ("-k", ["délta 100%", "gamma", "beta", "alpha"]),
        ("name", ["alpha", "beta", "délta 100%", "gamma"]),
        ("-created", ["délta 100%", "gamma", "beta", "alpha"]),
        ("finished", ["alpha", "beta", "gamma", "délta 100%"]),
        ("model", ["gamma", "beta", "alpha", "délta 100%"]),
    ],
)
def test_every_order_is_the_same_in_pages_of_one(
    api: TestClient, ids: dict[str, str], sort: str, names: list[str]
) -> None:
    if sort != "model":  # whose order is the database's
        assert listed(api, sort=sort) == names
    whole, found, cursor = listed(api, sort=sort), [], None
    for _ in names:
        page = api.get(
            "/api/v1/runs", params={"sort": sort, "limit": 1} | ({"cursor": cursor} if cursor else {})
        ).json()
        found += [run["name"] for run in page["items"]]
        cursor = page["next_cursor"]
    assert (found, cursor) == (whole, None)


def test_a_new_run_moves_nobody_to_another_page(api: TestClient, app: FastAPI, ids: dict[str, str]) -> None:
    first = api.get("/api/v1/runs", params={"limit": 2}).json()
    with app.state.db.write() as session:
        add_run(session, name="new")
    second = api.get("/api/v1/runs", params={"limit": 9, "cursor": first["next_cursor"]}).json()
    assert [run["name"] for run in (*first["items"], *second["items"])] == ["délta 100%", "gamma", "beta", "alpha"]


def test_a_cursor_of_another_order_is_refused(api: TestClient, ids: dict[str, str]) -> None:
    cursor = api.get("/api/v1/runs", params={"limit": 1, "sort": "fvu"}).json()["next_cursor"]
    assert api.get("/api/v1/runs", params={"cursor": cursor}).status_code == 422


RUN_ID = "0" * 26


@pytest.mark.parametrize(
    ("sort", "place"),
    [
        ("-created", "[" * 1400),
        ("fvu", f'["fvu", {10**30}, "{RUN_ID}"]'),
        ("name", f'["name", "\\ud800", "{RUN_ID}"]'),
        ("name", '["name", "a", "' + "\\u0000" * 26 + '"]'),
    ],
)
def test_a_cursor_that_nobody_gave_out_is_refused(api: TestClient, ids: dict[str, str], sort: str, place: str) -> None:
    cursor = base64.urlsafe_b64encode(place.encode()).decode()
    assert api.get("/api/v1/runs", params={"sort": sort, "cursor": cursor}).status_code == 422


def test_metrics_of_a_later_step_replace_the_earlier_ones(api: TestClient, app: FastAPI, ids: dict[str, str]) -> None:
    with app.state.db.write() as session:
        store_metrics(session, ids["gamma"], {"fvu/a": 0.01, "eval_fvu/a": "inf"})
    assert listed(api, q="fvu<0.05") == ["gamma"]
    assert listed(api, sort="fvu")[0] == "gamma"


def test_chosen_fields_are_shown_alone(api: TestClient, ids: dict[str, str]) -> None:
    page = api.get("/api/v1/runs", params={"q": "beta", "fields": "name,k,fvu,tag,auxk,eval_fvu,transcode"}).json()
    values = page["items"][0]["values"]
    assert values.pop("fvu") == pytest.approx(0.1)
    tags = ["draft", "paper/v2"]
    assert values == {"name": "beta", "k": 32, "tag": tags, "auxk": "nan", "eval_fvu": None, "transcode": False}


def test_people_write_on_a_run_and_see_when_another_was_faster(api: TestClient, ids: dict[str, str]) -> None:
    path = f"/api/v1/runs/{ids['beta']}"
    seen = api.get(path).headers["etag"]
    change = {"name": "renamed", "tags": ["Final", "final"], "notes": "# Good\r\n"}
    changed = api.patch(path, json=change, headers={"If-Match": seen})
    assert changed.status_code == 200
    run = changed.json()
    assert (run["name"], run["tags"], run["notes"]) == ("renamed", ["final"], "# Good")
    assert api.patch(path, json={"notes": "mine"}, headers={"If-Match": seen}).status_code == 412
    assert api.patch(path, json={"notes": ""}, headers={"If-Match": changed.headers["etag"]}).json()["notes"] == ""
    assert listed(api, q="tag:final") == listed(api, q="RENAMED") == ["renamed"]
    assert listed(api, q="tag:draft") == []
    assert [event["kind"] for event in api.get(f"{path}/events").json()["items"]] == ["queued", "renamed"]


@pytest.mark.parametrize(
    "change", [{}, {"name": " "}, {"tags": ["two words"]}, {"notes": "\x00"}, {"tags": ["a"] * 17}]
)
def test_a_change_that_makes_no_sense_is_refused(api: TestClient, ids: dict[str, str], change: dict[str, Any]) -> None:
    assert api.patch(f"/api/v1/runs/{ids['beta']}", json=change).status_code == 422


def test_many_runs_are_changed_at_once_and_each_says_what_became_of_it(api: TestClient, ids: dict[str, str]) -> None:
    asked = {"action": "archive", "ids": [ids["beta"], ids["gamma"]]}
    outcomes = api.post("/api/v1/runs/bulk", json=asked).json()["items"]
    assert [(each["name"], each["is_done"]) for each in outcomes] == [("beta", True), ("gamma", False)]
    assert "only a run that is over" in outcomes[1]["detail"]
    assert set(listed(api)) == {"alpha", "gamma", "délta 100%"}
    api.post("/api/v1/runs/bulk", json={"action": "tag", "q": "k:64", "tag": "wide"})
    assert set(listed(api, q="tag:wide")) == {"gamma", "délta 100%"}
    api.post("/api/v1/runs/bulk", json={"action": "untag", "q": "gamma", "tag": "wide"})
    assert listed(api, q="tag:wide") == ["délta 100%"]
    outcomes = api.post("/api/v1/runs/bulk", json={"action": "cancel", "q": "k:64"}).json()["items"]
    assert {each["name"]: each["state"] for each in outcomes} == {"gamma": "cancelled", "délta 100%": "failed"}
    assert [each["detail"] for each in outcomes if not each["is_done"]] == ["The run délta 100% is failed already."]
    api.post("/api/v1/runs/bulk", json={"action": "restore", "q": "archived:yes"})
    assert len(listed(api)) == len(RUNS)


@pytest.mark.parametrize(
    "body",
    [
        {"action": "tag", "q": ""},
        {"action": "pause"},
        {"action": "pause", "q": "", "tag": "x"},
        {"action": "x", "q": ""},
    ],
)
def test_a_bulk_request_is_checked(api: TestClient, body: dict[str, Any]) -> None:
    assert api.post("/api/v1/runs/bulk", json=body).status_code == 422


def test_views_are_kept_under_names(api: TestClient) -> None:
    made = api.post("/api/v1/views", json={"name": "Paper", "query": "cursor=x&sort=fvu&q=tag:paper"})
    assert made.status_code == 201
    assert made.json()["query"] == "q=tag%3Apaper&sort=fvu"
    assert api.post("/api/v1/views", json={"name": "Paper", "query": ""}).status_code == 409
    assert [view["name"] for view in api.get("/api/v1/views").json()["items"]] == ["Paper"]
    path = f"/api/v1/views/{made.json()['id']}"
    changed = api.patch(path, json={"query": "sort=-fvu"})
    assert changed.json() == made.json() | {"query": "sort=-fvu"}
    assert api.patch(path, json={"name": "Thesis"}).json() == changed.json() | {"name": "Thesis"}
    api.post("/api/v1/views", json={"name": "Other", "query": ""})
    taken = api.patch(path, json={"name": "Other"})
    assert (taken.status_code, taken.json()["code"]) == (409, "name_taken")
    assert [api.patch(path, json=wrong).status_code for wrong in ({}, {"name": " "}, {"id": "x"})] == [422] * 3
    assert [api.delete(path).status_code for _ in range(2)] == [204, 404]


@pytest.mark.parametrize("query", ["k>32", "q=fvu&order=fvu"])
def test_a_view_says_nothing_that_the_list_does_not_take(api: TestClient, query: str) -> None:
    refused = api.post("/api/v1/views", json={"name": "Paper", "query": query})
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["loc"] == ["query"]
