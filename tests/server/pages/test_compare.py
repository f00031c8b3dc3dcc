"""Several runs side by side."""

import json
import re
from html import unescape
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import event

from rows import add_attempt, add_checkpoint, add_run
from server.db.tables import Attempt, Run, RunState
from server.settings import Settings
from sparsify_core.config import RunConfig

pytestmark = pytest.mark.parametrize("settings", ["sqlite"], indirect=True)


@pytest.fixture
def ids(app: FastAPI, visitor: TestClient) -> list[str]:
    numbers = [(16, 0.3), (32, 0.2), (64, 0.25)]
    with app.state.db.write() as session:
        found = []
        for k, fvu in numbers:
            config = RunConfig(model="owner/model", dataset="owner/data", sae={"k": k}).model_dump(mode="json")
            latest = {"eval_fvu/a": fvu, "eval_l0/a": float(k)}
            place = {"state": RunState.COMPLETED, "step": 5, "tokens_per_step": k}
            found.append(add_run(session, name=f"k {k}", config=config, latest=latest, **place).id)
    return found


def test_runs_are_compared(visitor: TestClient, ids: list[str]) -> None:
    page = visitor.get("/compare", params={"run": ids}).text
    assert re.findall(r'<th scope="row" title="[^"]*"><code>(\w+)</code>', page) == ["k"]
    assert page.count('"><title>') == 3
    assert page.count('class="best"') == 2  # k 64 is beaten by k 32 in both
    assert page.count("<b>0.2000") == 1
    everything = visitor.get("/compare", params={"run": ids, "fields": "all", "across": "Tokens"}).text
    assert "<code>expansion_factor</code>" in everything
    assert "<option selected>Tokens</option>" in everything


def test_a_field_that_an_older_version_did_not_store_has_its_default(app: FastAPI, visitor: TestClient) -> None:
    new = RunConfig(model="owner/model", dataset="owner/data").model_dump(mode="json")
    old = {name: value for name, value in new.items() if name != "optimizer"}
    with app.state.db.write() as session:
        found = [
            add_run(session, config=config | {"lr": lr}).id
            for config, lr in ((new, 0.00123456), (old, 0.00123457), (new, 37.0))
        ]
    page = visitor.get("/compare", params={"run": found}).text
    assert re.findall(r'<th scope="row" title="[^"]*"><code>(\w+)</code>', page) == ["lr"]
    assert re.findall(r">(0\.0012345\d|37)<", page) == ["0.00123456", "0.00123457", "37"]


def test_what_cannot_be_compared_is_said(visitor: TestClient, ids: list[str]) -> None:
    assert "No run is chosen" in visitor.get("/compare").text
    assert visitor.get("/compare", params={"run": ["nothing"]}).status_code == 404
    answer = visitor.post("/runs/bulk", data={"action": "compare", "run": ids[:2]})
    assert answer.headers["location"] == f"/compare?run={ids[0]}&run={ids[1]}"


def order_of(page: str, table: str = "metrics") -> list[str]:
    """The runs of a table, from left to right."""
    rest = page[page.index(f'id="{table}-title"') :]
    return re.findall(r'title="(k \d+)"', rest[: rest.index("</thead>")])


def test_a_metric_orders_the_runs_and_each_keeps_its_number(app: FastAPI, visitor: TestClient, ids: list[str]) -> None:
    with app.state.db.write() as session:
        ids.append(add_run(session, name="k 99", latest={"eval_fvu/a": "nan", "eval_delta_ce/a": 1.0}).id)
    chosen = {"run": ids, "fields": "all", "up": "Tokens"}
    page = visitor.get("/compare", params=chosen).text
    assert order_of(page) == ["k 16", "k 32", "k 64", "k 99"]
    where = re.search(r'href="([^"]*sort=eval_fvu#metrics)"', page)
    assert where is not None
    page = visitor.get(unescape(where[1])).text
    assert order_of(page) == ["k 32", "k 64", "k 16", "k 99"]
    assert re.findall(r"<b>(\d)</b> k (\d+)", page)[:4] == [("2", "32"), ("3", "64"), ("1", "16"), ("4", "99")]
    assert 'aria-sort="ascending"' in page
    assert "best first" in page
    assert "<option selected>Tokens</option>" in page
    assert "<code>expansion_factor</code>" in page
    back = visitor.get(unescape(re.findall(r'href="([^"]*sort=-eval_fvu#metrics)"', page)[0])).text
    assert order_of(back) == ["k 16", "k 64", "k 32", "k 99"]
    live = visitor.get(unescape(where[1]), headers={"HX-Request": "true"}).text
    assert order_of(live, "differences") == order_of(live) == ["k 32", "k 64", "k 16", "k 99"]
    assert order_of(visitor.get("/compare", params={"run": ids, "sort": "nothing"}).text)[0] == "k 16"


def curves_of(page: str) -> list[dict[str, Any]]:
    """What the charts know of the runs."""
    found = re.search(r'data-runs="([^"]*)"', page)
    assert found is not None
    return json.loads(unescape(found[1]))


def test_charts_mark_what_few_runs_did_and_where_forks_begin(
    app: FastAPI, visitor: TestClient, settings: Settings, ids: list[str]
) -> None:
    with app.state.db.write() as session:
        parent = session.get_one(Run, ids[0])
        add_checkpoint(session, settings, parent, step=4)
        parent.tokens_per_step = 100
        over = {"state": RunState.COMPLETED, "latest": {"fvu/a": 0.5}}
        fork = add_run(session, name="fork", forked_from=ids[0], forked_step=4, **over).id
        session.add(Attempt(run_id=fork, attempt=1, started_at=7.0))
        others = [add_run(session, **over).id for _ in range(2)]
    page = visitor.get("/compare", params={"run": [*ids[:2], fork]}).text
    first, second, third = curves_of(page)
    assert [mark["label"] for mark in first["marks"]] == ["checkpoint of step 4"]
    assert (first["branch"], second["marks"]) == (None, [])
    assert (third["branch"], third["before"]) == ({"parent": ids[0], "step": 4}, {"steps": 4, "tokens": 400})
    assert third["origin"] == 7.0
    bar = page[page.index('class="hint') :][:300]
    assert ("checkpoint" in bar, "warning" in bar, "fork begins" in bar) == (True, False, True)
    many = visitor.get("/compare", params={"run": [*ids, fork, *others]}).text
    assert [curve["marks"] for curve in curves_of(many)] == [[]] * 6
    assert 'name="marks"' in many
    assert 'name="marks"' not in visitor.get("/compare", params={"run": ids[1:]}).text


def test_runs_that_are_not_over_are_followed(app: FastAPI, visitor: TestClient, ids: list[str]) -> None:
    with app.state.db.write() as session:
        waits = add_run(session, name="waits", state=RunState.PAUSED)
        trains = add_run(session, name="trains", state=RunState.RUNNING)
        add_attempt(session, waits, event_seq=4)
        add_attempt(session, waits, attempt=2, event_seq=7)
    page = visitor.get("/compare", params={"run": [ids[0], waits.id, trains.id]}).text
    assert f'data-topics="metrics:{waits.id},metrics:{trains.id}" data-cursor="2.7,0.0"' in page
    assert re.search(r'id="chart-eval_kl"[^>]* hidden>', page)  # it may come to have values
    assert "warning" in page[page.index('class="hint') :][:300]
    over = visitor.get("/compare", params={"run": ids}).text
    assert 'data-topics="" data-cursor=""' in over
    assert "chart-eval_kl" not in over
    answer = visitor.get("/compare", params={"run": [ids[0], trains.id]}, headers={"HX-Request": "true"}).text
    assert "<html" not in answer
    assert [curve["name"] for curve in curves_of(answer)] == ["k 16", "trains"]
    assert "Pareto board" in answer


def test_many_runs_are_asked_for_at_once(app: FastAPI, visitor: TestClient, ids: list[str]) -> None:
    """Marks, origins and cursors of all runs come with the same number of queries as those of one."""
    statements: list[str] = []
    event.listen(app.state.db.engine, "before_cursor_execute", lambda *args: statements.append(args[2]))
    with app.state.db.write() as session:
        ids += [add_run(session, state=RunState.RUNNING).id for _ in range(2)]
    counts = []
    for chosen in (ids[-1:], ids):
        statements.clear()
        assert visitor.get("/compare", params={"run": chosen}).status_code == 200
        counts.append(len([one for one in statements if one.startswith("SELECT")]))
    assert counts[0] == counts[1]
