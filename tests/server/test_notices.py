"""Channels and watch rules through REST and the page."""

import html
import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlmodel import select

from server.db.tables import Channel, WatchHit, WatchRule

RULE = {"metric": "fvu", "above": True, "value": 0.4, "from_tokens": 20_000_000, "action": "cancel"}


def test_a_channel_is_made_tested_and_deleted(api: TestClient) -> None:
    answer = api.post("/api/v1/channels", json={"kind": "webhook", "target": "https://example.org/hook"})
    assert answer.status_code == 201, answer.text
    made = answer.json()
    assert made["signing_key"].startswith("whsec_")
    assert made["events"] == ["completed", "failed", "watch", "health"]
    (listed,) = api.get("/api/v1/channels").json()["items"]
    assert "signing_key" not in listed
    assert api.post(f"/api/v1/channels/{made['id']}/test").status_code == 202
    (sent,) = api.get(f"/api/v1/channels/{made['id']}/deliveries").json()["items"]
    assert sent["event_id"] == 0
    assert api.delete(f"/api/v1/channels/{made['id']}").status_code == 204
    assert api.get("/api/v1/channels").json()["items"] == []
    assert api.delete(f"/api/v1/channels/{made['id']}").status_code == 404


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"kind": "webhook", "target": "https://127.0.0.1/"}, "SPARSEBOARD_WEBHOOK_HOSTS"),
        ({"kind": "webhook", "target": "http://example.org/"}, "use https"),
        ({"kind": "email", "target": "ada@example.org"}, "SPARSEBOARD_SMTP_URL"),
        ({"kind": "webhook", "target": "https://example.org/", "events": ["sneezed"]}, "sneezed is none of"),
    ],
)
def test_what_cannot_work_is_refused_with_what_to_do(sqlite_api: TestClient, body: dict[str, Any], says: str) -> None:
    answer = sqlite_api.post("/api/v1/channels", json=body)
    assert answer.status_code == 422
    assert says in answer.text
    assert sqlite_api.get("/api/v1/channels").json()["items"] == []


def test_a_rule_is_tried_made_and_deleted(api: TestClient) -> None:
    tried = api.post("/api/v1/watch-rules/dry-run", json=RULE)
    assert tried.json() == {"num_runs": 0, "saved_s": 0, "num_best": 0, "stopped": []}
    assert api.get("/api/v1/watch-rules").json()["items"] == []
    made = api.post("/api/v1/watch-rules", json=RULE)
    assert made.status_code == 201
    (listed,) = api.get("/api/v1/watch-rules").json()["items"]
    assert listed == made.json()
    assert listed["runs"] == "*"
    assert api.delete(f"/api/v1/watch-rules/{listed['id']}").status_code == 204
    assert api.get("/api/v1/watch-rules").json()["items"] == []


def test_a_rule_is_changed_in_place(api: TestClient, app: FastAPI, run_id: str) -> None:
    path = api.post("/api/v1/watch-rules", json=RULE).headers["location"]
    with app.state.db.write() as session:
        session.add(WatchHit(rule_id=path.rpartition("/")[2], run_id=run_id, step=1, value=0.5))
    before = api.get(path)
    same = api.patch(path, json={"value": RULE["value"]}, headers={"If-Match": before.headers["etag"]})
    assert (same.json(), same.headers["etag"]) == (before.json(), before.headers["etag"])
    with app.state.db.read() as session:
        assert session.exec(select(WatchHit)).all()
    changed = api.patch(path, json={"above": False, "from_tokens": 0}, headers={"If-Match": before.headers["etag"]})
    assert changed.json() == before.json() | {"above": False, "from_tokens": 0} == api.get(path).json()
    with app.state.db.read() as session:  # it may act anew
        assert session.exec(select(WatchHit)).all() == []
    late = api.patch(path, json={"value": 1.0}, headers={"If-Match": before.headers["etag"]})
    assert (late.status_code, late.json()["code"]) == (412, "not_current")
    for wrong in ({}, {"metric": "vibes"}, {"value": None}, {"runs": "a\u200b"}, {"id": "x"}):
        assert api.patch(path, json=wrong).status_code == 422, wrong
    assert api.get(path).json() == changed.json()
    assert api.patch("/api/v1/watch-rules/x", json={"value": 1.0}).status_code == 404


def test_a_rule_is_edited_and_tried_on_the_page(visitor: TestClient, app: FastAPI) -> None:
    with app.state.db.write() as session:
        rule = WatchRule(**RULE)
        session.add(rule)
    page = visitor.get(f"/notices?edit={rule.id}").text
    assert "Change this rule" in page
    form = {name: str(value).lower() for name, value in RULE.items()} | {"edit": rule.id, "runs": "*"}
    form["version"] = html.unescape(re.findall(r'name="version" value="([^"]+)"', page)[0])
    asked = visitor.post("/notices/rules", data=form | {"value": "60%", "try": "1"})
    tried = visitor.get(asked.headers["location"]).text
    assert "No run with such a name is over yet" in tried
    assert "Save rule" in tried
    assert f'name="edit" value="{rule.id}"' in tried
    assert visitor.post("/notices/rules", data=form | {"value": "much"}).status_code == 422
    assert visitor.post("/notices/rules", data=form | {"value": "60%"}).status_code == 303
    late = visitor.post("/notices/rules", data=form | {"value": "70%"})
    assert late.status_code == 422
    assert "has changed the rule meanwhile" in late.text
    again = html.unescape(re.findall(r'name="version" value="([^"]+)"', late.text)[0])
    assert visitor.post("/notices/rules", data=form | {"value": "70%", "version": again}).status_code == 303
    with app.state.db.read() as session:
        (stored,) = session.exec(select(WatchRule))
    assert (stored.id, stored.value) == (rule.id, 0.7)
    assert visitor.get("/notices?edit=gone").status_code == 404


def test_what_was_typed_outlives_the_rule(visitor: TestClient, app: FastAPI) -> None:
    form = {name: str(value).lower() for name, value in RULE.items()} | {"runs": "night-*"}
    gone = visitor.post("/notices/rules", data=form | {"edit": "gone", "version": "v"})
    assert gone.status_code == 422
    assert "has deleted the rule meanwhile" in gone.text
    assert 'value="night-*"' in gone.text
    assert "Add rule" in gone.text
    assert 'name="edit"' not in gone.text
    assert visitor.post("/notices/rules", data=form).status_code == 303


def test_of_two_changes_at_once_one_is_refused(api: TestClient) -> None:
    path = api.post("/api/v1/watch-rules", json=RULE).headers["location"]
    seen = {"If-Match": api.get(path).headers["etag"]}
    with ThreadPoolExecutor(4) as pool:
        answers = list(
            pool.map(lambda value: api.patch(path, json={"value": value}, headers=seen), (0.1, 0.2, 0.3, 0.5))
        )
    assert sorted(answer.status_code for answer in answers) == [200, 412, 412, 412]


@pytest.mark.parametrize("change", [{"metric": "vibes"}, {"action": "explode"}, {"runs": ""}, {"from_tokens": -1}])
def test_a_rule_without_sense_is_refused(sqlite_api: TestClient, change: dict[str, Any]) -> None:
    assert sqlite_api.post("/api/v1/watch-rules", json=RULE | change).status_code == 422


def test_the_page_keeps_what_was_typed(visitor: TestClient, app: FastAPI) -> None:
    channel = {"kind": "webhook", "target": "https://10.0.0.1/x", "events": "failed"}
    refused = visitor.post("/notices/channels", data=channel)
    assert refused.status_code == 422
    assert "https://10.0.0.1/x" in refused.text
    assert "inside the own network" in refused.text
    made = visitor.post("/notices/channels", data=channel | {"target": "https://example.org/x"})
    assert "whsec_" in made.text
    assert "whsec_" not in visitor.get("/notices").text
    typed = {name: str(value).lower() for name, value in RULE.items()} | {"runs": "blue*"}
    asked = visitor.post("/notices/rules", data=typed | {"try": "1"})
    tried = visitor.get(asked.headers["location"])  # an address that can be kept and shared
    assert "No run with such a name is over yet" in tried.text
    assert 'value="blue*"' in tried.text
    assert visitor.get("/notices", params=typed | {"try": "1", "value": "much"}).status_code == 422
    assert visitor.post("/notices/rules", data=typed | {"value": "much"}).status_code == 422
    assert visitor.post("/notices/rules", data=typed | {"value": "40%", "from_tokens": "20M"}).status_code == 303
    with app.state.db.read() as session:
        (rule,) = session.exec(select(WatchRule))
        (stored,) = session.exec(select(Channel))
    assert (rule.above, rule.value, rule.runs, rule.action) == (True, 0.4, "blue*", "cancel")
    assert stored.events == ["failed"]
    assert "0.4 from 20,000,000 tokens" in visitor.get("/notices").text
    for path in (f"rules/{rule.id}", f"channels/{stored.id}"):
        assert visitor.post(f"/notices/{path}/delete").status_code == 303
    assert "No rules yet" in visitor.get("/notices").text


@pytest.mark.parametrize("path", ["/notices/rules", "/notices/channels", "/settings/tokens"])
def test_where_a_form_came_back_the_page_is_found_again(visitor: TestClient, path: str) -> None:
    answer = visitor.get(path)
    assert (answer.status_code, answer.headers["location"]) == (303, path.rpartition("/")[0])


@pytest.mark.parametrize("path", ["/logout", "/notices/rules/x/delete", "/runs/views/x/delete"])
def test_an_address_with_no_page_above_it_leads_nowhere(visitor: TestClient, path: str) -> None:
    assert visitor.get(path).status_code == 405
