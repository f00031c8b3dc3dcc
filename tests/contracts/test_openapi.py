"""The REST API is a promise. After an intended change run `python tests/contracts/test_openapi.py`, read the diff."""

import json
from pathlib import Path
from typing import Any

from server.app import create_app
from server.services.requests import RunRequest
from server.settings import Settings

SNAPSHOT = Path(__file__).with_name("openapi.json")


def schema() -> dict[str, Any]:
    described: dict[str, Any] = create_app(Settings(database_url="")).openapi()
    return described


def text() -> str:
    return json.dumps(schema(), indent=1, sort_keys=True) + "\n"


def test_the_api_is_the_promised_one() -> None:
    assert text() == SNAPSHOT.read_text(encoding="utf-8")


def test_operations_are_named_by_tag_and_function() -> None:
    operations = [op for path in schema()["paths"].values() for op in path.values()]
    assert all(op["operationId"] == f"{op['tags'][0]}-{op['operationId'].split('-', 1)[1]}" for op in operations)
    assert "runs-create_run" in {op["operationId"] for op in operations}


def test_every_operation_says_who_may_call_it_and_how_it_refuses() -> None:
    described = schema()
    assert described["security"] == [{"token": []}]
    problem = {"schema": {"$ref": "#/components/schemas/ProblemDetail"}}
    for operations in described["paths"].values():
        for operation in operations.values():
            assert operation["responses"].keys().isdisjoint({"401", "422"})
            assert operation["responses"]["default"]["content"] == {"application/problem+json": problem}


def test_every_body_is_described() -> None:
    body = schema()["paths"]["/api/v1/runs"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert body["properties"].keys() == RunRequest.model_fields.keys()


if __name__ == "__main__":
    SNAPSHOT.write_text(text(), encoding="utf-8")
