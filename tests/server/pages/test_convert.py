"""The tabs of the launch form and its hookpoint picker, as a browser without JavaScript uses them."""

import html
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from sqlmodel import select

from clients import browse
from server.app import create_app
from server.db.tables import BrowserSession, Run
from server.pages import forms
from server.settings import Settings


@pytest.fixture
def visitor(sqlite_settings: Settings, tiny_model: Path) -> Iterator[TestClient]:
    app = create_app(sqlite_settings.model_copy(update={"source_roots": [tiny_model.parent]}))
    with browse(app) as client:
        with app.state.db.read() as session:
            client.headers["X-CSRF-Token"] = session.exec(select(BrowserSession.csrf_token)).one()
        yield client


def typed(**config: str) -> dict[str, str]:
    """The form as a browser sends it, untouched but for `config`."""
    values = {name: forms.sent(value) for name, value in forms.values_of({}).items()}
    return values | {f"config.{name.replace('__', '.')}": value for name, value in config.items()}


def text_of(page: str) -> str:
    found = re.search(r'<textarea [^>]*id="text"[^>]*>\n?(.*?)</textarea>', page, re.DOTALL)
    assert found, page
    return html.unescape(found[1])


def hidden(page: str) -> dict[str, str]:
    pairs = re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)">', page)
    return {name: html.unescape(value) for name, value in pairs}


def convert(visitor: TestClient, to: str, **values: str) -> str:
    answer = visitor.post("/runs/new/convert", data=values | {"to": to})
    assert answer.status_code == 200, answer.text
    return answer.text


def test_a_configuration_goes_through_all_tabs_and_is_queued(visitor: TestClient) -> None:
    page = convert(visitor, "yaml", **typed(model="a/b", sae__k="64", lr="1e-5"), tab="form")
    text = text_of(page)
    assert text == "model: a/b\ndataset: EleutherAI/SmolLM2-135M-10B\nsae:\n  k: 64\nlr: 1.0e-05\n"
    page = convert(visitor, "command", **hidden(page) | {"text": text.replace("64", "16")})
    assert text_of(page).startswith("python -m sparsify_core a/b EleutherAI/SmolLM2-135M-10B \\\n  --k 16")
    changed = "torchrun --nproc_per_node 2 -m sparsify a/b c/d -k 8 --save_dir x"
    page = convert(visitor, "api", **hidden(page) | {"text": changed})
    assert '"k": 8' in text_of(page)
    assert '"num_processes": 2' in text_of(page)
    assert "save_dir is left out" in page
    page = convert(visitor, "form", **hidden(page))
    assert re.search(r'name="config.sae.k" value="8"', page)
    text = "model: a/b\ndataset: c/d\nsae: {k: 4}\n"
    sent = hidden(page) | typed() | {"tab": "yaml", "text": text, "name": "mine"}
    queued = visitor.post("/runs/new", data=sent)
    assert queued.status_code == 303, queued.text
    with visitor.app.state.db.read() as session:  # type: ignore[attr-defined]
        run = session.exec(select(Run)).one()
    assert (run.name, run.config["model"], run.config["sae"]["k"]) == ("mine", "a/b", 4)


def test_a_sweep_goes_through_the_tabs(visitor: TestClient) -> None:
    sweep = {"sweep.field": "sae.k", "sweep.values": "8 16", "sweep.draws": "", "name": "fox"}
    call = text_of(convert(visitor, "api", **typed(model="a/b") | sweep))
    body = json.loads(shlex.split(call)[-1])
    assert "/api/v1/sweeps" in call
    assert body["axes"] == [{"field": "sae.k", "values": [8, 16]}]
    assert body["base"]["config"]["model"] == "a/b"
    made = visitor.post("/api/v1/sweeps", json=body)
    assert [one["name"] for one in made.json()["runs"]] == ["fox k=8", "fox k=16"]
    page = convert(visitor, "yaml", **typed(model="a/b") | sweep)
    assert "it makes the sweep over sae.k, whose runs share what stands here" in page
    text = text_of(page) + "lr: 0.5\n"
    queued = visitor.post("/runs/new", data=typed() | sweep | {"tab": "yaml", "text": text})
    assert queued.headers["location"].startswith("/sweeps/")
    with visitor.app.state.db.read() as session:  # type: ignore[attr-defined]
        assert len(session.exec(select(Run).where(Run.config["lr"].as_float() == 0.5)).all()) == 2


@pytest.mark.parametrize("path", ["/runs/new/convert", "/runs/new"])
def test_a_wrong_text_is_shown_again_with_the_line(visitor: TestClient, path: str) -> None:
    text = "model: a/b\r\nsae:\r\n  k: <many>\r\n"
    answer = visitor.post(path, data=typed() | {"tab": "yaml", "text": text, "to": "form"})
    assert answer.status_code == 422
    assert text_of(answer.text) == text.replace("\r\n", "\n")
    assert "<strong>Line 3:</strong> sae.k: input should be a valid integer" in answer.text
    back = visitor.post("/runs/new/convert", data=typed(sae__k="7") | {"tab": "yaml", "text": text, "discard": "true"})
    assert text_of(back.text).endswith("k: 7\n")


def test_a_wrong_form_is_not_written_down(visitor: TestClient) -> None:
    answer = visitor.post("/runs/new/convert", data=typed(sae__k="many") | {"to": "yaml"})
    assert answer.status_code == 422
    assert "This cannot be written down yet" in answer.text
    assert re.search(r'name="config.sae.k" value="many"[^>]*aria-invalid="true"', answer.text)


def test_the_picker_shows_modules_and_what_the_patterns_match(visitor: TestClient, tiny_model: Path) -> None:
    fields = typed(model=str(tiny_model), hookpoints="layers.*.mlp")
    assert "have not been looked at yet" in visitor.post("/runs/new/modules", data=fields).text
    page = visitor.post("/runs/new/convert", data=fields | {"tab": "form", "read": "modules"}).text
    assert "<strong>2 modules</strong>" in page
    assert 'data-patterns="layers.[0-9]"' in page
    assert 'data-patterns="layers.*.mlp.up_proj"' in page
    assert "32 → 64" in page
    for hookpoints, layers, said in [
        ("layers.*.attn", "", "no module matches hookpoint"),
        ("", "", "<code>layers.0</code>, <code>layers.1</code>"),
        ("layers.0 layers.*.mlp", "", "<code>layers.0</code> ×1 · <code>layers.*.mlp</code> ×2"),
        ("", "7", "layer 7 does not exist"),
        ("layers", "", "layers (ModuleList) gives no vector per token"),
    ]:
        fields = typed(model=str(tiny_model), hookpoints=hookpoints, layers=layers)
        assert said in html.unescape(visitor.post("/runs/new/modules", data=fields).text)


def test_models_and_datasets_of_runs_and_of_the_cache_are_proposed(
    visitor: TestClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    for name in ("models--owner--cached", "datasets--owner--text", "version.txt"):
        (tmp_path / name).mkdir()
    with visitor.app.state.db.write() as session:  # type: ignore[attr-defined]
        session.add(Run(name="old", state="cancelled", config={"model": "recent/model", "dataset": "recent/data"}))
    page = visitor.get("/runs/new?preset=blank").text
    known = re.findall(r'<datalist id="f-config-(\w+)-known">(.*?)</datalist>', page)
    assert {name: re.findall('value="([^"]+)"', options) for name, options in known} == {
        "model": ["recent/model", "owner/cached"],
        "dataset": ["recent/data", "owner/text"],
    }


def test_the_plan_is_of_the_text_that_is_typed(visitor: TestClient) -> None:
    text = "model: a/b\nsae:\n  k: many\n"
    rail = visitor.post("/runs/plan", data=typed() | {"tab": "yaml", "text": text}, headers={"HX-Request": "true"}).text
    assert "Line 3" in rail
    assert "sae.k: input should be a valid integer" in rail
