"""`/api/v1/presets` those that come with Sparseboard are valid, own ones come and go."""

from typing import Any

import pytest
from fastapi.testclient import TestClient

from server.services.requests import RunRequest
from server.services.shipped_presets import SHIPPED, ShippedPreset
from sparsify_core.config import RunConfig


@pytest.mark.parametrize("preset", SHIPPED, ids=lambda preset: preset.key)
def test_what_comes_with_sparseboard_is_a_valid_run(preset: ShippedPreset) -> None:
    request = RunRequest.model_validate({"config": preset.config} | preset.launch)
    assert request.config != RunConfig()
    assert preset.name != preset.description


def test_a_preset_is_saved_found_and_deleted(api: TestClient, valid: dict[str, Any]) -> None:
    run = valid | {"name": "not kept", "num_processes": 4, "labels": ["a100"]}
    body = {"name": " Mine ", "description": "for k = 32", "run": run}
    answer = api.post("/api/v1/presets", json=body)
    assert answer.status_code == 201
    saved = answer.json()
    assert (saved["name"], saved["is_own"], saved["config"]["model"]) == ("Mine", True, "owner/model")
    assert saved["launch"] == {"num_processes": 4, "num_nodes": 1, "min_memory_gb": None, "labels": ["a100"]}
    assert api.get(answer.headers["location"]).json() == saved
    listed = api.get("/api/v1/presets").json()["items"]
    assert [one["id"] for one in listed] == [*(one.key for one in SHIPPED), saved["id"]]
    again = api.post("/api/v1/presets", json=body)
    assert (again.status_code, again.json()["errors"][0]["code"]) == (422, "taken")
    assert api.delete(answer.headers["location"]).status_code == 204
    assert api.delete(answer.headers["location"]).status_code == 404


@pytest.mark.parametrize(
    ("change", "where"),
    [({"name": ""}, "name"), ({"name": "\t"}, "name"), ({"name": SHIPPED[0].name}, "name"), ({"run": {}}, "run")],
)
def test_what_is_no_preset_is_refused(
    sqlite_api: TestClient, valid: dict[str, Any], change: dict[str, Any], where: str
) -> None:
    answer = sqlite_api.post("/api/v1/presets", json={"name": "a", "run": valid} | change)
    assert (answer.status_code, answer.json()["errors"][0]["loc"][0]) == (422, where)


def test_what_comes_with_sparseboard_is_not_deleted(sqlite_api: TestClient) -> None:
    assert sqlite_api.delete(f"/api/v1/presets/{SHIPPED[0].key}").status_code == 404
