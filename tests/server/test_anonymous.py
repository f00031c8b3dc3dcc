"""Nothing but a short list is reached without logging in."""

from collections.abc import Iterator

import pytest
from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from fastapi.testclient import TestClient

from server.auth import ANONYMOUS


def methods_and_paths(app: FastAPI) -> Iterator[tuple[str, str]]:
    for context in iter_route_contexts(app.routes):
        for method in sorted(context.methods or {"GET"}):
            yield method, context.path


def test_every_route_denies_strangers_except_the_named_ones(anonymous: TestClient, sqlite_app: FastAPI) -> None:
    seen = set()
    for method, path in methods_and_paths(sqlite_app):
        seen.add((method, path))
        if (method, path) in ANONYMOUS or (method == "HEAD" and ("GET", path) in ANONYMOUS) or path == "/static":
            continue
        answer = anonymous.request(method, path.replace("{", "x").replace("}", "x").replace(":path", ""))
        if path.startswith(("/api/", "/events", "/metrics")):
            assert answer.status_code == 401, (method, path)
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.headers["www-authenticate"] == "Bearer"
        else:
            assert answer.status_code == 303, (method, path)
            assert answer.headers["location"].startswith("/login")
    assert ("POST", "/api/v1/runs") in seen
    assert ("GET", "/runs/{run_id}") in seen
    assert len(seen) > 30


def test_unknown_paths_deny_strangers_too(anonymous: TestClient) -> None:
    assert anonymous.get("/api/v1/nothing").status_code == 401
    assert anonymous.get("/nothing").status_code == 303


def test_the_list_of_anonymous_routes_is_short(anonymous: TestClient) -> None:
    assert len(ANONYMOUS) <= 6
    assert anonymous.get("/healthz").json() == {"status": "ok"}
    assert anonymous.get("/readyz").status_code == 200
    assert anonymous.get("/login").status_code == 200
    assert anonymous.get("/favicon.ico").status_code == 200
    assert anonymous.get("/static/css/base.css").status_code == 200


@pytest.mark.parametrize(
    "path", ["/static/../server/app.py", "/static/%2e%2e/server/app.py", "/static/..%2f..%2fetc/passwd"]
)
def test_static_files_do_not_lead_out_of_their_folder(anonymous: TestClient, path: str) -> None:
    assert anonymous.get(path).status_code in (303, 404)


@pytest.mark.parametrize("path", ["/docs", "/redoc", "/openapi.json", "/api/v1/openapi.json"])
def test_documentation_is_not_public(anonymous: TestClient, path: str) -> None:
    assert anonymous.get(path).status_code in (303, 401)
