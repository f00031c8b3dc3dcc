"""The parts of the launch form beside its fields: presets, the sweep, what a copy changes."""

import re
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlmodel import select

from rows import add_run
from server.db.tables import Preset, Run
from server.pages import sweep_form
from server.services.shipped_presets import SHIPPED

HTMX = {"HX-Request": "true"}
RUN = {"name": "fox", "config.model": "owner/model", "config.dataset": "owner/data"}


def rows(*axes: tuple[str, str], **more: str) -> dict[str, Any]:
    """A form with these rows of the sweep."""
    named = {"sweep.field": [name for name, _ in axes], "sweep.values": [values for _, values in axes]}
    return RUN | named | {f"sweep.{name}": value for name, value in more.items()}


def words(page: str) -> str:
    return " ".join(re.sub(r"<[^>]+>", " ", page).split())


@pytest.mark.parametrize(
    ("name", "text", "axis"),
    [
        ("sae.k", "16, 32\n64", {"values": [16, 32, 64]}),
        ("sae.k", "16 many", {"values": [16, "many"]}),
        ("max_tokens", "1e6 2000000", {"values": [10**6, 2 * 10**6]}),
        ("lr", "1e-3 automatic", {"values": [0.001, None]}),
        ("lr", "1e-4..1e-2 log", {"low": "1e-4", "high": "1e-2", "scale": "log"}),
        ("sae.k", "8 .. 64", {"low": "8", "high": "64", "scale": "linear"}),
        ("sae.k", "..... x", {"values": [".....", "x"]}),
        ("sae.k", "1..9 cubic", {"values": ["1..9", "cubic"]}),
        ("sae.k", "." * 50_000 + " x", {"values": ["." * 50_000, "x"]}),
        ("optimizer", "adam signum", {"values": ["adam", "signum"]}),
        ("sae.transcode", "yes false", {"values": [True, False]}),
        ("hookpoints", "layers.3 layers.5\nlayers.7", {"values": [["layers.3", "layers.5"], ["layers.7"]]}),
        ("layers", "1,2\n3", {"values": [[1, 2], [3]]}),
    ],
)
def test_values_are_read_as_their_field_has_them(name: str, text: str, axis: dict[str, Any]) -> None:
    assert sweep_form.axis_of(name, text) == {"field": name} | axis


def test_an_empty_section_makes_one_run(visitor: TestClient) -> None:
    answer = visitor.post("/runs/new", data=rows(("", ""), ("", " "), ("", "")))
    assert answer.headers["location"].startswith("/runs/")


def test_the_form_makes_a_sweep(app: FastAPI, visitor: TestClient) -> None:
    asked = rows(("sae.k", "16 32"), ("", ""), ("lr", "1e-3 1e-2 automatic"))
    outcome = visitor.post("/runs/new/sweep", data=asked, headers=HTMX)
    assert "This makes 6 runs : k=16 lr=0.001 · k=16 lr=0.01 · k=16 lr=automatic and 3 more" in words(outcome.text)
    page = visitor.post("/runs/new/sweep", data=asked)
    assert page.status_code == 200
    assert "This makes 6 runs" in words(page.text)
    assert ">1e-3 1e-2 automatic</textarea>" in page.text
    answer = visitor.post("/runs/new", data=asked)
    assert answer.headers["location"].startswith("/sweeps/")
    with app.state.db.read() as session:
        made = session.exec(select(Run).order_by(Run.rank)).all()
    assert [run.name for run in made][:2] == ["fox k=16 lr=0.001", "fox k=16 lr=0.01"]


def test_draws_come_from_the_form_too(visitor: TestClient) -> None:
    asked = rows(("lr", "1e-4..1e-2 log"), draws="5", seed="1")
    assert "This makes 5 runs" in words(visitor.post("/runs/new/sweep", data=asked, headers=HTMX).text)


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        (rows(("sae.k", "16 many")), "k=many: must be a valid integer"),
        (rows(("sae.k", "")), "sae.k: give either values"),
        (rows(("", "1 2")), "is no field of a configuration"),
        (rows(("lr", "1e-4..1e-2")), "say how many runs to draw"),
        (rows(("lr", "1e-3"), draws="many"), "valid integer"),
    ],
)
def test_what_is_wrong_with_a_sweep_stands_in_its_section(
    app: FastAPI, visitor: TestClient, asked: dict[str, Any], says: str
) -> None:
    page = visitor.post("/runs/new", data=asked)
    assert page.status_code == 422
    section = page.text[page.text.index('id="sweep-outcome"') :]
    assert says in words(section)
    with app.state.db.read() as session:
        assert session.exec(select(Run)).all() == []


def test_an_error_of_a_field_stands_beside_it_in_a_sweep_too(visitor: TestClient) -> None:
    page = visitor.post("/runs/new", data=rows(("lr", "0.1")) | {"config.sae.k": "many"}).text
    assert re.search(r'name="config.sae.k" value="many"[^>]*aria-invalid', page)


def test_presets_fill_the_form_in(visitor: TestClient) -> None:
    page = visitor.get("/runs/new?preset=llama3").text
    assert 'name="config.sae.k" value="192"' in page
    assert 'name="num_processes" value="8"' in page
    assert all(one.name in page for one in SHIPPED)
    assert 'name="config.sae.k" value="32"' in visitor.get("/runs/new?preset=gone").text


def test_a_form_is_saved_as_a_preset_and_deleted(app: FastAPI, visitor: TestClient) -> None:
    asked = RUN | {"config.sae.k": "48", "preset.name": "mine", "preset.description": "why"}
    answer = visitor.post("/presets", data=asked)
    page = visitor.get(answer.headers["location"]).text
    assert 'name="config.sae.k" value="48"' in page
    assert 'name="name" value="fox"' in page
    assert "Delete mine?" in page
    taken = visitor.post("/presets", data=asked)
    assert taken.status_code == 422
    assert "There is a preset mine already" in words(taken.text)
    wrong = visitor.post("/presets", data=asked | {"preset.name": "other", "config.sae.k": "many"})
    assert wrong.status_code == 422
    assert re.search(r'name="config.sae.k" value="many"[^>]*aria-invalid', wrong.text)
    assert "Replace mine" in taken.text
    again = visitor.post("/presets", data=asked | {"config.sae.k": "50", "preset.replaces": "true"})
    assert again.headers["location"] == answer.headers["location"]
    assert 'name="config.sae.k" value="50"' in visitor.get(again.headers["location"]).text
    shipped = visitor.post("/presets", data=asked | {"preset.name": SHIPPED[0].name, "preset.replaces": "true"})
    assert shipped.status_code == 422
    assert "Replace" not in shipped.text
    path = parse_qs(urlsplit(answer.headers["location"]).query)["preset"][0]
    assert visitor.post(f"/presets/{path}/delete").headers["location"] == "/runs/new"
    with app.state.db.read() as session:
        assert session.exec(select(Preset)).all() == []


def test_what_is_beside_a_saved_preset_stays_typed(app: FastAPI, visitor: TestClient) -> None:
    with app.state.db.write() as session:
        source = add_run(session, name="owl")
    asked = rows(("sae.k", "16 32"), ("", "")) | {"cloned_from": source.id, "config.lr": "0.5", "preset.name": "mine"}
    page = visitor.get(visitor.post("/presets", data=asked).headers["location"]).text
    assert f'name="cloned_from" value="{source.id}"' in page
    assert 'name="name" value="fox"' in page
    assert ">16 32</textarea>" in page
    assert "lr none → 0.5" in words(page)
    with app.state.db.read() as session:
        assert len(session.exec(select(Run)).all()) == 1


def test_of_enter_beside_the_name_of_a_preset_it_is_asked_what_was_meant(app: FastAPI, visitor: TestClient) -> None:
    """Without a script, which knows the field; whatever is wrong, the name of the preset stays typed."""
    asked = RUN | {"preset.name": "mine", "preset.description": "why"}
    for wrong, says in (
        ({"by": "enter"}, "press Queue run, or Save as a preset"),
        ({"config.lr": "x"}, "Must be a valid number"),
    ):
        page = visitor.post("/runs/new", data=asked | wrong)
        assert page.status_code == 422
        assert says in words(page.text)
        assert 'name="preset.name" value="mine"' in page.text
        assert 'name="preset.description" value="why"' in page.text
    with app.state.db.read() as session:
        assert session.exec(select(Run)).all() == session.exec(select(Preset)).all() == []
    assert visitor.post("/runs/new", data=asked).headers["location"].startswith("/runs/")


def test_the_preset_stays_chosen_beside_an_error(visitor: TestClient) -> None:
    page = visitor.post("/runs/new", data=RUN | {"preset": "pythia", "config.sae.k": "many"}).text
    assert re.search(r'href="/runs/new\?preset=pythia"[^>]*aria-current', page)
    assert "the first command of sparsify" in page


@pytest.mark.parametrize("path", ["/presets", "/runs/plan", "/runs/new/convert", "/runs/new/sweep"])
def test_addresses_that_forms_are_sent_to_lead_back_to_the_form(visitor: TestClient, path: str) -> None:
    assert visitor.get(path, follow_redirects=False).headers["location"] == "/runs/new"


def test_a_copy_says_what_it_changes_before_and_after(app: FastAPI, visitor: TestClient) -> None:
    with app.state.db.write() as session:
        source = add_run(session, name="fox")
    asked = RUN | {"cloned_from": source.id, "config.hookpoints": "layers.5", "config.sae.k": "64"}
    assert "k 32 → 64" in words(visitor.post("/runs/new/changes", data=asked, headers=HTMX).text)
    text = asked | {"tab": "yaml", "text": "model: owner/model\ndataset: owner/data\nlr: 0.5\n"}
    assert "lr none → 0.5" in words(visitor.post("/runs/new/changes", data=text, headers=HTMX).text)
    assert visitor.post("/runs/new/changes", data=text | {"text": "lr: x"}, headers=HTMX).status_code == 204
    run = visitor.post("/runs/new", data=asked).headers["location"]
    assert "cloned from fox ; differs in k 32 → 64" in words(visitor.get(run).text)
    del asked["config.sae.k"]
    run = visitor.post("/runs/new", data=asked).headers["location"]
    assert "cloned from fox , with the same configuration" in words(visitor.get(run).text)
    assert visitor.post("/runs/new/changes", data=RUN, headers=HTMX).status_code == 404
