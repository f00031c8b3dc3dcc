"""Plans of absurd numbers, over the API and beside the form: an answer, or a sentence about the field."""

from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from planned import know_shape, model_shape
from sqlmodel import select

from server.db.tables import BrowserSession
from server.pages import forms
from server.settings import Settings

MODEL = "owner/model"
NUMBERS = {name: spec for name, spec in forms.specs().items() if spec.kind in ("int", "float", "list[int]")}
ABSURD = [0, 1, -1, 0.5, 5e-324, 1e-320, 1e308, -1e308, 2**31, 2**53, 2**53 + 1, 2**63, 10**100, -(10**100)]
TYPED = ["", "0", "-1", "1e308", "-1e308", "1e-400", "9" * 5000, "0x10", "1_000", "inf", "nan", "-0", "½", "٣"]
MANY = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@st.composite
def absurd(draw: st.DrawFn) -> dict[str, Any]:
    """Up to four fields by their names in the form, at the ends of what they take or far beyond."""
    chosen = draw(st.lists(st.sampled_from(sorted(NUMBERS)), min_size=1, max_size=4, unique=True))
    values = {}
    for name in chosen:
        spec = NUMBERS[name]
        ends = [end for end in (spec.minimum, spec.maximum) if end is not None]
        number = draw(st.sampled_from([*ABSURD, *ends]))
        values[name] = [number] if spec.kind == "list[int]" else number
    return values


@pytest.fixture(autouse=True)
def shape(sqlite_settings: Settings) -> None:
    know_shape(sqlite_settings, MODEL, model_shape(2, 32, 10_000, 64))


@pytest.fixture
def typist(sqlite_app: FastAPI, browser: TestClient) -> TestClient:
    with sqlite_app.state.db.read() as session:
        browser.headers["X-CSRF-Token"] = session.exec(select(BrowserSession.csrf_token)).one()
    return browser


def body_of(values: dict[str, Any]) -> dict[str, Any]:
    body: dict[str, Any] = {"config": {"model": MODEL, "dataset": "owner/data", "max_tokens": 10**9}}
    for name, value in values.items():
        *parents, leaf = name.split(".")
        node = body
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = value
    return body


@MANY
@given(values=absurd(), device=st.sampled_from(["auto", "cpu", "cuda"]))
def test_absurd_numbers_are_planned_or_refused_by_name(
    sqlite_api: TestClient, values: dict[str, Any], device: str
) -> None:
    answer = sqlite_api.post("/api/v1/runs/plan", json=body_of(values | {"config.device": device}))
    assert answer.status_code in (200, 422), answer.text
    if answer.status_code == 422:
        assert all(error["loc"] and error["msg"] for error in answer.json()["errors"])


@MANY
@given(values=st.dictionaries(st.sampled_from(sorted(NUMBERS)), st.sampled_from(TYPED), min_size=1, max_size=4))
def test_whatever_is_typed_the_form_shows_a_plan_or_names_fields(typist: TestClient, values: dict[str, str]) -> None:
    sources = {"config.model": MODEL, "config.dataset": "owner/data"}
    answer = typist.post("/runs/plan", data=sources | values, headers={"HX-Request": "true"})
    assert answer.status_code == 200
    assert "The plan waits for" in answer.text or "parameters" in answer.text
