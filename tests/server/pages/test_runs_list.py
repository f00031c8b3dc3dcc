"""The page of the list of runs and what people write on a run."""

import asyncio
import re

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from rows import add_run
from server.db.tables import Run, RunState
from server.pages.list_state import read_list_state
from server.pages.markdown import render_markdown

HTMX = {"HX-Request": "true"}
pytestmark = pytest.mark.parametrize("settings", ["sqlite"], indirect=True)


@pytest.fixture
def run_id(app: FastAPI, visitor: TestClient) -> str:
    with app.state.db.write() as session:
        return add_run(session, name="one", state=RunState.COMPLETED, latest={"fvu/a": 0.25}, tags=["paper"]).id


def names(page: str) -> list[str]:
    return re.findall(r'class="name"[^>]*>([^<]+)<', page)


def test_a_wrong_search_is_explained_beside_the_box(visitor: TestClient, run_id: str) -> None:
    page = visitor.get("/runs", params={"q": "kk>3"})
    assert page.status_code == 200
    assert page.text.count("There is no field kk. Did you mean k") == 1
    assert 'id="num-found"' not in page.text
    assert 'value="kk&gt;3"' in page.text
    part = visitor.get("/runs", params={"q": "kk>3"}, headers=HTMX)
    assert part.status_code == 422
    assert "<table" not in part.text


def test_columns_are_chosen_and_sorted_by(visitor: TestClient, run_id: str) -> None:
    page = visitor.get("/runs?fields=model&fields=fvu,lr&sort=-fvu").text
    assert ">0.2500</span>" in page
    assert re.search(
        r'<th[^>]*aria-sort="descending"[^>]*><a [^>]*href="/runs\?sort=fvu&amp;fields=model%2Cfvu%2Clr"', page
    )
    assert f"/runs/{run_id}/row?fields=model%2Cfvu%2Clr" in page
    assert ">owner/model</td>" in re.sub(r"\s+", "", visitor.get(f"/runs/{run_id}/row?fields=model").text)
    columns = visitor.get("/runs/columns?fields=lr,k").text
    assert set(re.findall(r'value="(\w+)" checked', columns)) == {"lr", "k"}
    groups = re.findall(r"<legend>(.*?)</legend>", columns)
    assert len(groups) == len(set(groups)) > 2


def test_too_many_columns_are_cut_between_names(settings: object) -> None:
    names = asyncio.run(read_list_state(fields=["fvu"] * 400)).fields
    assert set(names.split(",")) == {"fvu"}
    assert len(names) == 999


def test_a_view_is_kept_shown_and_forgotten(visitor: TestClient, run_id: str) -> None:
    kept = visitor.post("/runs/views", data={"name": "Paper", "query": "q=tag%3Apaper&cursor=x"})
    assert kept.headers["location"] == "/runs?q=tag%3Apaper"
    page = visitor.get(kept.headers["location"]).text
    assert '<a href="/runs?q=tag%3Apaper" aria-current="page">Paper</a>' in page
    assert names(page) == ["one"]
    path = re.search(r'action="(/runs/views/\w+/delete)"', page)
    assert path is not None
    visitor.post(path[1])
    assert "Paper" not in visitor.get("/runs").text


@pytest.mark.parametrize(
    ("query", "problem"), [("zzz=1", "no parameter of the page"), ("q=x&" * 21, "fields exceeded")]
)
def test_a_view_of_what_is_no_list_is_refused(visitor: TestClient, query: str, problem: str) -> None:
    answer = visitor.post("/runs/views", data={"name": "Paper", "query": query})
    assert answer.status_code == 422
    assert problem in answer.text
    assert "Paper" not in visitor.get("/runs").text


def test_a_view_of_a_known_name_is_replaced_after_a_question(visitor: TestClient, run_id: str) -> None:
    old, new = {"name": "Paper", "query": "q=tag%3Apaper"}, {"name": "Paper", "query": "state=failed&sort=fvu"}
    visitor.post("/runs/views", data=old)
    asked = visitor.post("/runs/views", data=new)
    assert asked.status_code == 409
    assert "search tag:paper" in asked.text
    assert "state failed, sorted by fvu" in asked.text
    assert '<a href="/runs?q=tag%3Apaper">Paper</a>' in visitor.get("/runs").text
    replaced = visitor.post("/runs/views", data=new | {"replaces": "true"})
    assert replaced.headers["location"] == "/runs?state=failed&sort=fvu"
    page = visitor.get("/runs?state=failed&sort=fvu").text
    assert '<a href="/runs?state=failed&amp;sort=fvu" aria-current="page">Paper</a>' in page
    assert page.count(">Paper</a>") == 1
    path = re.findall(r'action="(/runs/views/\w+/rename)"', page)[0]
    assert visitor.post(path, data={"name": "Thesis"}).headers["location"] == "/runs?state=failed&sort=fvu"
    visitor.post("/runs/views", data=old)
    assert visitor.post(path, data={"name": "Paper"}).status_code == 409
    assert ">Thesis</a>" in visitor.get("/runs").text


def test_all_that_match_are_tagged(app: FastAPI, visitor: TestClient, run_id: str) -> None:
    with app.state.db.write() as session:
        add_run(session, name="two")
    answer = visitor.post("/runs/bulk", data={"action": "tag", "tag": "New", "everything": "true", "q": "tag:paper"})
    assert "1 run tagged new" in answer.text
    assert names(visitor.get("/runs?q=tag:new").text) == ["one"]
    assert visitor.post("/runs/bulk", data={"action": "tag", "tag": "a b", "run": run_id}).status_code == 422
    wrong = {"action": "cancel", "everything": "true", "state": "foo"}
    assert visitor.post("/runs/bulk", data=wrong).status_code == 422


def test_notes_are_written_and_nobody_overwrites_another(app: FastAPI, visitor: TestClient, run_id: str) -> None:
    page = visitor.get(f"/runs/{run_id}").text
    version = re.search(r'name="version" value="([^"]+)"', page)
    assert version is not None
    seen = version[1].replace("&#34;", '"')
    mine = {"version": seen, "name": "one", "tags": "paper, best", "notes": "*good* <img src=x>"}
    assert visitor.post(f"/runs/{run_id}/about", data=mine).status_code == 303
    page = visitor.get(f"/runs/{run_id}").text
    assert "<em>good</em> &lt;img src=x&gt;" in page
    late = visitor.post(f"/runs/{run_id}/about", data=mine | {"notes": "what I typed"})
    assert late.status_code == 422
    assert "what I typed" in late.text
    assert "<em>good</em>" in late.text
    nameless = visitor.post(f"/runs/{run_id}/about", data={"version": "*", "notes": "what I typed"})
    assert nameless.status_code == 422
    assert "a run needs a name" in nameless.text
    assert visitor.patch(f"/api/v1/runs/{run_id}", json={"name": " "}).status_code == 422
    assert visitor.patch(f"/api/v1/runs/{run_id}", json={"name": ""}).status_code == 422
    with app.state.db.read() as session:
        run = session.get_one(Run, run_id)
        assert (run.name, run.tags) == ("one", ["best", "paper"])


def test_an_archived_run_is_hidden_and_found(visitor: TestClient, run_id: str) -> None:
    visitor.post(f"/runs/{run_id}/archive")
    assert "No run matches" in visitor.get("/runs").text
    assert names(visitor.get("/runs?q=archived:yes").text) == ["one"]
    visitor.post(f"/runs/{run_id}/restore")
    assert names(visitor.get("/runs").text) == ["one"]


def test_markdown_lets_nothing_dangerous_through(settings: object) -> None:
    html = render_markdown(
        "# T\n\n<script>x</script> [a](javascript:alert(1)) [b](https://b.org) [c](data:text/html,x) ![i](https://i.org/p)\n\n"
        "| a |\n|--:|\n| **1** |\n\n[d](//evil.org) <https://e.org>"
    )
    assert "<h3>T</h3>" in html
    assert "<script" not in html
    assert "style=" not in html
    assert "<img" not in html
    assert re.findall(r'href="([^"]*)"', html) == ["https://b.org", "https://i.org/p", "https://e.org"]
    assert html.count('rel="nofollow noopener"') == 3
    assert "<strong>1</strong>" in html


def test_short_rows_of_a_table_are_not_filled_up_without_end(settings: object) -> None:
    table = "|" + "a|" * 500 + "\n|" + "-|" * 500 + "\n" + "|a\n" * 500
    assert render_markdown(table).count("<td") < 2_000
