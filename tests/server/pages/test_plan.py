"""The plan beside the launch form, with and without a script, and what is predicted on a run's page."""

import re
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from planned import SMOLLM2_135M, know_shape
from sqlmodel import select

from rows import add_run
from server.db.tables import BrowserSession, Prediction
from server.numbers import quantity
from server.settings import Settings
from sparsify_core.config import RunConfig

MODEL = RunConfig().model


@pytest.fixture
def typed(sqlite_app: FastAPI, browser: TestClient, sqlite_settings: Settings) -> dict[str, Any]:
    """The fields of a form whose model is known."""
    know_shape(sqlite_settings, MODEL, SMOLLM2_135M)
    with sqlite_app.state.db.read() as session:
        token = session.exec(select(BrowserSession.csrf_token)).one()
    values = {"model": MODEL, "dataset": "owner/data", "hookpoints": "layers.5", "max_tokens": "100000000"}
    return {"csrf_token": token} | {f"config.{name}": value for name, value in values.items()}


def rail(browser: TestClient, typed: dict[str, Any], **changes: Any) -> str:
    """What htmx gets."""
    fields = typed | {f"config.{name}": value for name, value in changes.items()}
    answer = browser.post("/runs/plan", data=fields, headers={"HX-Request": "true"})
    assert answer.status_code == 200
    return re.sub(r"\s+", " ", re.sub(r"<(svg|script).*?</\1>", "", answer.text, flags=re.S))


def test_the_rail_says_what_the_run_needs(browser: TestClient, typed: dict[str, Any]) -> None:
    text = rail(browser, typed)
    assert "<html" not in text
    assert "is number 1 in the queue" in text
    assert "tokens/s" in text
    assert "21.3M parameters" in text
    assert "Activations<span>" in text
    assert "torch.distributed.run" in text


def test_wrong_fields_are_named_and_lead_to_their_controls(browser: TestClient, typed: dict[str, Any]) -> None:
    text = rail(browser, typed, batch_size="many")
    assert "The plan waits for 1 field." in text
    assert '<a href="#f-config-batch_size"><code>batch_size</code></a>' in text


def test_the_rail_sums_a_sweep_up_and_plans_its_largest_run(browser: TestClient, typed: dict[str, Any]) -> None:
    alone = rail(browser, typed, **{"sae.expansion_factor": "64"})
    rows = {"sweep.field": ["sae.expansion_factor"], "sweep.values": ["64 8 16"]}
    text = rail(browser, typed | rows)
    assert "<strong>3 runs</strong> take about <strong>" in text
    assert "<code>expansion_factor=64</code>" in text
    assert re.search(r"[\d.]+M parameters", text)[0] == re.search(r"[\d.]+M parameters", alone)[0]  # type: ignore[index]
    body = {
        "base": {"config": {"model": MODEL, "dataset": "owner/data", "hookpoints": ["layers.5"], "max_tokens": 10**8}},
        "axes": [{"field": "lr", "values": [0.001, 0.002]}],
    }
    browser.headers["X-CSRF-Token"] = typed["csrf_token"]
    total = browser.post("/api/v1/sweeps/plan", json=body).json()["duration_s"]
    one = browser.post("/api/v1/runs/plan", json=body["base"]).json()["forecast"]["duration_s"]
    assert total["expected"] == pytest.approx(2 * one["expected"])
    wrong = rail(browser, typed | rows | {"sweep.values": ["64 many"]})
    assert "The plan waits for 1 field." in wrong
    assert "expansion_factor=many: must be a valid integer" in wrong


def test_a_fix_carries_what_it_types(browser: TestClient, typed: dict[str, Any]) -> None:
    text = rail(browser, typed, lr="5", exclude_first="0")
    assert 'value="{&#34;config.lr&#34;: &#34;&#34;}"' in text
    assert 'value="{&#34;config.exclude_first&#34;: &#34;1&#34;}"' in text


def test_without_a_script_the_whole_form_comes_back_with_the_fix_typed(
    browser: TestClient, typed: dict[str, Any]
) -> None:
    fix = {"config.lr": "5", "name": "mine", "fix": '{"config.lr": ""}'}
    page = browser.post("/runs/plan", data=typed | fix).text
    assert "<html" in page
    assert 'name="name" value="mine"' in page
    assert 'name="config.lr" value=""' in page
    assert "A learning rate of 5" not in page
    assert "A learning rate of 5" in browser.post("/runs/plan", data=typed | fix | {"fix": "no JSON"}).text

    fix["fix"] = '{"config.sae.transcode": true}'
    assert re.search(
        r'name="config.sae.transcode" value="true"[^>]* checked', browser.post("/runs/plan", data=typed | fix).text
    )


@pytest.mark.parametrize(
    ("tab", "text", "fixed"),
    [
        ("yaml", "model: {m}\ndataset: owner/data\nlr: 5.0\nexclude_first: 0\n", "exclude_first: 1"),
        ("command", "python -m sparsify_core {m} owner/data --lr 5.0 --exclude_first 0", "--exclude_first 1"),
    ],
)
def test_a_fix_is_written_into_the_text_that_is_shown(
    browser: TestClient, typed: dict[str, Any], tab: str, text: str, fixed: str
) -> None:
    sent = typed | {"tab": tab, "text": text.format(m=MODEL), "fix": '{"config.exclude_first": "1"}'}
    page = browser.post("/runs/plan", data=sent).text
    shown = page.partition('id="text"')[2].partition("</textarea>")[0]
    assert fixed in shown
    assert "5.0" in shown
    assert "A learning rate of 5" in page
    broken = browser.post("/runs/plan", data=sent | {"text": "--lr"}).text
    assert ">\n--lr</textarea>" in broken


@pytest.mark.parametrize("fix", ["[1]", "[" * 50_000, "1" * 5000])
def test_a_fix_that_is_none_of_ours_types_nothing(browser: TestClient, typed: dict[str, Any], fix: str) -> None:
    assert browser.post("/runs/plan", data=typed | {"fix": fix}).status_code == 200


@pytest.mark.parametrize("layer", ["-1", "30"])
def test_a_layer_that_does_not_exist_is_named_in_the_form(
    browser: TestClient, typed: dict[str, Any], layer: str
) -> None:
    page = browser.post("/runs/plan", data=typed | {"config.hookpoints": "", "config.layers": layer})
    assert page.status_code == 200
    assert f"layer {layer} does not exist: the model has layers 0 to 29" in page.text


def test_a_model_that_nobody_has_read_is_read_while_the_rail_waits(browser: TestClient, typed: dict[str, Any]) -> None:
    text = rail(browser, typed, model="owner/another")
    assert 'id="reads-owner/another%40" hx-post="/runs/plan/shape"' in text
    assert "Memory and speed cannot be told" in text


def test_a_model_that_could_not_be_read_is_not_read_again_with_every_letter(
    browser: TestClient, typed: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    asked = typed | {"config.model": "owner/mistyped"}
    read = browser.post("/runs/plan/shape", data=asked, headers={"HX-Request": "true"})
    assert (read.status_code, read.text, read.headers["HX-Trigger"]) == (204, "", "shape-read")
    text = rail(browser, asked, batch_size="8")
    assert "/runs/plan/shape" not in text
    assert "forbids to download it" in text


def test_a_folder_without_a_model_is_told_apart_from_a_defect(
    browser: TestClient, typed: dict[str, Any], sqlite_settings: Settings
) -> None:
    Path(sqlite_settings.demo_dir).mkdir()
    assert "cannot be told" in rail(browser, typed, model=str(sqlite_settings.demo_dir))


def test_a_plan_needs_a_log_in_and_a_token(anonymous: TestClient, browser: TestClient, typed: dict[str, Any]) -> None:
    assert anonymous.post("/runs/plan", data=typed).status_code in (303, 401)
    assert browser.post("/runs/plan", data=typed | {"csrf_token": ""}).status_code == 403


def test_a_run_shows_what_was_predicted_beside_what_it_needed(browser: TestClient, sqlite_app: FastAPI) -> None:
    with sqlite_app.state.db.write() as session:
        run_id, other = add_run(session).id, add_run(session).id
        expected = {"tokens_per_s": [1000.0, 500.0, 2000.0], "disk_bytes": [1e9] * 3}
        session.add(Prediction(run_id=run_id, device="GPU", family="f", expected=expected))
    waiting = browser.get(f"/runs/{run_id}").text
    assert "1k tokens/s" in waiting
    assert "500 to 2k tokens/s" in waiting
    with sqlite_app.state.db.write() as session:
        row = session.get_one(Prediction, run_id)
        row.actual, row.actual_device = {"tokens_per_s": 1500.0, "disk_bytes": 1.01e9}, "GPU"
    ended = browser.get(f"/runs/{run_id}").text
    assert "+50%" in ended
    assert "as predicted" in ended
    assert "Predicted and actual" not in browser.get(f"/runs/{other}").text


@pytest.mark.parametrize(
    ("value", "form", "text"),
    [
        (74.7349, "rate", "74.7 tokens/s"),
        (2_112_345.0, "rate", "2.11M tokens/s"),
        (2_112_345.0, "number", "2.11M"),
        (211.0, "duration", "3.5 min"),
        (40.2, "duration", "40 s"),
        (20_000.0, "duration", "5.6 h"),
        (12_345_678.0, "duration", "143 d"),
        (1.3e9, "size", "1.3 GB"),
    ],
)
def test_predicted_numbers_are_no_finer_than_they_can_be_known(value: float, form: str, text: str) -> None:
    assert quantity(value, form) == text
