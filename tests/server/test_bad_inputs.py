"""Wrong input gets one clear answer, writes nothing, and the server goes on."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlmodel import select

from clients import serve
from server.app import create_app
from server.db.tables import Run
from server.settings import Settings

JSON = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def shared_settings(tmp_path_factory: pytest.TempPathFactory, sqlite_template: bytes) -> Settings:
    data_dir = tmp_path_factory.mktemp("data")
    (data_dir / "sparseboard.db").write_bytes(sqlite_template)
    return Settings(data_dir=data_dir, database_url="")


@pytest.fixture(scope="module")
def sqlite_app(shared_settings: Settings) -> FastAPI:
    """One application for the whole file: whatever it is sent, it must go on."""
    return create_app(shared_settings)


@pytest.fixture(scope="module")
def sqlite_api(sqlite_app: FastAPI) -> Iterator[TestClient]:
    with serve(sqlite_app) as client:
        yield client


def num_runs(app: FastAPI) -> int:
    with app.state.db.read() as session:
        return len(session.exec(select(Run.id)).all())


def body(**config: Any) -> dict[str, Any]:
    return {"config": {"model": "owner/model", "dataset": "owner/data"} | config}


def refused(client: TestClient, app: FastAPI, sent: Any, status: int = 422) -> dict[str, Any]:
    before = num_runs(app)
    content = sent if isinstance(sent, str | bytes) else json.dumps(sent)
    answer = client.post("/api/v1/runs", content=content, headers=JSON)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert num_runs(app) == before
    problem: dict[str, Any] = answer.json()
    assert problem["status"] == status
    assert problem["detail"]
    assert "Traceback" not in answer.text
    return problem


RAW = '{"config": {"model": "owner/model", "dataset": "owner/data", "%s": %s}}'


@pytest.mark.parametrize(
    ("name", "literal"),
    [
        ("lr", "NaN"),
        ("lr", "Infinity"),
        ("lr", "-Infinity"),
        ("lr", "1e999"),
        ("lr", '"nan"'),
        ("lr", '"0.1"'),
        ("lr", "0"),
        ("lr", "-1"),
        ("lr", "true"),
        ("max_tokens", "9223372036854775808"),
        ("max_tokens", "1" + "0" * 400),
        ("max_tokens", "0"),
        ("max_tokens", "-1"),
        ("max_tokens", "1.0"),
        ("max_tokens", '"10"'),
        ("max_tokens", "true"),
        ("save_every", "9007199254740993"),
        ("batch_size", "1000000000000"),
        ("hookpoints", '"layers.5"'),
        ("hookpoints", "null"),
        ("hookpoints", "{}"),
        ("layers", "[1.5]"),
        ("layers", "[-1]"),
        ("optimizer", '"ADAM"'),
        ("ctx_len", "[]"),
    ],
)
def test_numbers_of_the_wrong_kind_or_size_are_named(
    sqlite_api: TestClient, sqlite_app: FastAPI, name: str, literal: str
) -> None:
    problem = refused(sqlite_api, sqlite_app, RAW % (name, literal))
    assert any(e["loc"][:2] == ["config", name] or name in e["msg"] for e in problem["errors"])


@pytest.mark.parametrize(
    ("sae", "word"),
    [({"expansion_factor": 10**9}, "expansion_factor"), ({"num_latents": 8, "k": 9}, "k = 9"), ({"k": 0}, "k")],
)
def test_shapes_that_cannot_be_are_named(
    sqlite_api: TestClient, sqlite_app: FastAPI, sae: dict[str, int], word: str
) -> None:
    assert word in json.dumps(refused(sqlite_api, sqlite_app, body(sae=sae))["errors"])


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b'"x"', b"\xff\xfe{}", b'{"config": \xc3\x28}', b"[" * 100_000, b"1" * 5000, b"{}"],
)
def test_bodies_that_are_no_request_are_refused(sqlite_api: TestClient, sqlite_app: FastAPI, content: bytes) -> None:
    before = num_runs(sqlite_app)
    answer = sqlite_api.post("/api/v1/runs", content=content, headers=JSON)
    assert answer.status_code in (400, 422)
    assert answer.headers["content-type"] == "application/problem+json"
    assert num_runs(sqlite_app) == before


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "", "application/jsonx"])
def test_only_json_is_json(sqlite_api: TestClient, sqlite_app: FastAPI, kind: str) -> None:
    before = num_runs(sqlite_app)
    content = json.dumps(body())
    answer = sqlite_api.post("/api/v1/runs", content=content, headers={"content-type": kind})
    assert answer.status_code == 415
    assert num_runs(sqlite_app) == before


@pytest.mark.parametrize(
    "name",
    [
        "x" * 201,
        "x" * 1_000_000,
        "a\u202eb",
        "a\u2066b",
        "a\u200fb",
        "a\nb",
        "a\x00b",
        "a\x1b[31mb",
        "a\u2028b",
        "\ufeffa",
        5,
    ],
)
def test_names_that_are_too_long_or_hide_something_are_refused(
    sqlite_api: TestClient, sqlite_app: FastAPI, name: Any
) -> None:
    problem = refused(sqlite_api, sqlite_app, body() | {"name": name})
    assert problem["errors"][0]["loc"] == ["name"]


@pytest.mark.parametrize(
    "name",
    [
        "<script>alert(1)</script>",
        '"><img src=x onerror=alert(1)>',
        "{{7*7}}",
        "${x}",
        "');alert(1)//",
        "..",
        "CON",
        "-x",
        "\u05d0",
    ],
)
def test_names_are_only_text(sqlite_api: TestClient, shared_settings: Settings, name: str) -> None:
    made = sqlite_api.post("/api/v1/runs", json=body() | {"name": name})
    assert made.status_code == 201
    assert made.json()["name"] == name
    assert shared_settings.run_dir(made.json()["id"]).root.name == made.json()["id"]


@pytest.mark.parametrize(
    "key", ["output_dir", "env", "argv", "--x", "hf_token", "_target_", "shell", "device_map", "trust_remote_code"]
)
def test_unknown_keys_are_refused(sqlite_api: TestClient, sqlite_app: FastAPI, key: str) -> None:
    problem = refused(sqlite_api, sqlite_app, body(**{key: "x"}))
    assert problem["errors"][0]["loc"] == ["config", key]
    refused(sqlite_api, sqlite_app, body() | {key: "x"})


@pytest.mark.parametrize("field", ["model", "dataset"])
@pytest.mark.parametrize(
    "source",
    [
        "../../etc/passwd",
        "..",
        ".",
        "..\\..\\x",
        "%2e%2e%2fx/y/z",
        ";/../x",
        "/etc/passwd",
        "/",
        "~",
        "~/model",
        "C:\\model",
        "file:///etc/passwd",
        "http://169.254.169.254/",
        "hf://owner/model",
        "owner/model/../../x",
        "a/b/c",
        "--help",
        "; rm -rf /",
        "$(id)",
        "owner/mod\nel",
        "/proc/self/environ",
        "secrets.json",
        "docs/private.txt",
        "",
    ],
)
def test_sources_outside_the_declared_folders_are_refused(
    sqlite_api: TestClient, sqlite_app: FastAPI, field: str, source: str
) -> None:
    problem = refused(sqlite_api, sqlite_app, body(**{field: source}))
    assert problem["errors"][0]["loc"] == ["config", field]


def test_local_sources_must_lie_really_below_a_declared_folder(sqlite_settings: Settings, tmp_path: Path) -> None:
    root = tmp_path / "sources"
    root.mkdir()
    (root / "text.jsonl").write_text("{}")
    (root / "model.gguf").write_text("GGUF")
    (root / "loader.py").write_text("")
    (root / "link").symlink_to("/etc/passwd")
    (tmp_path / "sources-beside").mkdir()
    app = create_app(sqlite_settings.model_copy(update={"source_roots": [root]}))
    with serve(app) as client:

        def take(path: Path, field: str = "dataset") -> int:
            return client.post("/api/v1/runs", json=body(**{field: str(path)})).status_code

        assert take(root / "text.jsonl") == 201
        assert take(root / "model.gguf", "model") == 201
        for path in ("link", "missing.jsonl", "loader.py", "../sources-beside", "../sources/text.jsonl"):
            assert take(root / path) == 422
        for model in (tmp_path / "model.gguf", root / "missing.gguf", Path("owner/model.gguf"), Path("model.gguf")):
            assert take(model, "model") == 422
        assert take(tmp_path / "sources-beside") == 422


@pytest.mark.parametrize("source", ["gpt2", "/etc", "../x", "/proc/self", "", "owner/../x", "a/b/c"])
def test_fine_tuning_starts_from_declared_folders_or_repositories(
    sqlite_api: TestClient, sqlite_app: FastAPI, source: str
) -> None:
    assert refused(sqlite_api, sqlite_app, body(finetune=source))["errors"][0]["loc"] == ["config", "finetune"]
    assert sqlite_api.post("/api/v1/runs", json=body(finetune="owner/saes")).status_code == 201


@pytest.mark.parametrize(
    "arguments", ["data_files=/etc/passwd", "data_files=../x", "trust_remote_code=True", "a=http://x", "x", "a=~/b"]
)
def test_arguments_of_the_dataset_name_no_places(sqlite_api: TestClient, sqlite_app: FastAPI, arguments: str) -> None:
    assert refused(sqlite_api, sqlite_app, body(data_args=arguments))["errors"][0]["loc"] == ["config", "data_args"]
    assert sqlite_api.post("/api/v1/runs", json=body(data_args="name=wiki,data_dir=a/b")).status_code == 201


@pytest.mark.parametrize(
    "patterns",
    [
        ["["] * 2,
        ["layers.5", "layers.5"],
        ["*" * 200],
        ["layers." + "*." * 200],
        [""],
        ["x" * 201],
        ["a b"],
        ["x"] * 10_000,
        ["layers.0", "[a"],
        ["layers.[9-0]"],
        ["layers..5"],
    ],
)
def test_hookpoints_that_cannot_be_meant_are_refused(
    sqlite_api: TestClient, sqlite_app: FastAPI, patterns: list[str]
) -> None:
    problem = refused(sqlite_api, sqlite_app, body(hookpoints=patterns))
    assert "hookpoint" in json.dumps(problem["errors"])


def test_layers_and_hookpoints_exclude_each_other(sqlite_api: TestClient, sqlite_app: FastAPI) -> None:
    refused(sqlite_api, sqlite_app, body(layers=[1], hookpoints=["layers.1"]))


@pytest.mark.parametrize("number", [0, -1, 65, 1.5, "2", True])
def test_numbers_of_processes_have_bounds(sqlite_api: TestClient, sqlite_app: FastAPI, number: Any) -> None:
    assert refused(sqlite_api, sqlite_app, body() | {"num_processes": number})["errors"][0]["loc"] == ["num_processes"]


@pytest.mark.parametrize("name", ["run_name", "save_dir"])
def test_what_sparseboard_decides_is_refused_not_ignored(
    sqlite_api: TestClient, sqlite_app: FastAPI, name: str
) -> None:
    assert refused(sqlite_api, sqlite_app, body(**{name: "/tmp/x"}))["errors"][0]["loc"] == ["config", name]


@pytest.mark.parametrize("wrong", ["9223372036854775808", "-1", "abc", "%00", "1%2f..%2f2", "%252e%252e", "x" * 5000])
@pytest.mark.parametrize(
    "path", ["/api/v1/runs/{}", "/api/v1/runs/{}/metrics", "/api/v1/checkpoints/{}", "/api/v1/pushes/{}"]
)
def test_ids_that_are_none_are_not_found(sqlite_api: TestClient, path: str, wrong: str) -> None:
    assert sqlite_api.get(path.format(wrong)).status_code == 404
    assert sqlite_api.post(f"/api/v1/runs/{wrong}/cancel").status_code == 404


@pytest.mark.parametrize(
    "query",
    [
        "limit=-1",
        "limit=0",
        "limit=1e9",
        "limit=201",
        "limit=x",
        "limit=10&limit=20",
        "state=nothing",
        "state=failed&state=queued",
        "cursor=abc",
        "cursor=" + "x" * 10_000,
        "cursor=WyJhIiwgMV0",
        "cursor=bnVsbA",
        "cursor=W05hTiwgIjAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwIl0",
        "q=" + "x" * 1001,
        "q=kk>3",
        "q=k>many",
        "q=%00",
        "sort=nothing",
        "fields=nothing",
    ],
)
def test_wrong_or_repeated_parameters_are_refused(sqlite_api: TestClient, query: str) -> None:
    answer = sqlite_api.get(f"/api/v1/runs?{query}")
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["loc"][0] == "query"


def test_wrong_methods_say_which_are_right(sqlite_api: TestClient) -> None:
    answer = sqlite_api.put("/api/v1/runs")
    assert answer.status_code == 405
    assert "GET" in answer.headers["allow"]
    assert answer.headers["content-type"] == "application/problem+json"
    assert sqlite_api.request("TRACE", "/api/v1/runs").status_code == 405


@pytest.mark.parametrize("key", ["", "x" * 201, "a b", "\u00e9"])
def test_odd_idempotency_keys_are_refused(sqlite_api: TestClient, sqlite_app: FastAPI, key: str) -> None:
    before = num_runs(sqlite_app)
    answer = sqlite_api.post("/api/v1/runs", json=body(), headers={b"Idempotency-Key": key.encode()})
    assert answer.status_code == 422
    assert num_runs(sqlite_app) == before


@pytest.mark.parametrize("name", ["/etc", "../x", "a/b", ".", "..", ".hidden", "~", "", "a b", "a" * 101, "C:x"])
def test_a_cache_of_activations_is_a_name_and_no_path(sqlite_api: TestClient, sqlite_app: FastAPI, name: str) -> None:
    problem = refused(sqlite_api, sqlite_app, body(cache_activations=name))
    assert problem["errors"][0]["loc"] == ["config", "cache_activations"]
    assert sqlite_api.post("/api/v1/runs", json=body(cache_activations="smol-135m.v1")).status_code == 201


@pytest.mark.parametrize(
    ("method", "path", "unknown"),
    [
        ("GET", "/api/v1/runs?q=k>8&status=failed", "status"),
        ("GET", "/api/v1/metrics?run=a&run=b&key=fvu&keys=fvu", "keys"),
        ("POST", "/api/v1/queue/pause?for=3600", "for"),
    ],
)
def test_a_parameter_that_a_request_does_not_have_is_named(
    sqlite_api: TestClient, method: str, path: str, unknown: str
) -> None:
    answer = sqlite_api.request(method, path)
    assert answer.status_code == 422
    assert answer.json()["errors"] == [
        {"loc": ["query", unknown], "msg": "no parameter of this request", "code": "unknown"}
    ]
    assert sqlite_api.get("/api/v1/queue").json()["paused"] is False


@pytest.mark.parametrize(
    ("path", "sent", "field"),
    [
        ("channels", {"kind": "webhook", "target": "http://10.0.0.1/hook"}, "target"),
        ("channels", {"kind": "webhook", "target": "https://example.org", "events": ["over"]}, "events"),
        ("watch-rules", {"metric": "fuv", "value": 0.4}, "metric"),
    ],
)
def test_a_wrong_field_of_any_body_is_named_from_the_body_on(
    sqlite_api: TestClient, path: str, sent: dict[str, Any], field: str
) -> None:
    answer = sqlite_api.post(f"/api/v1/{path}", json=sent)
    assert answer.status_code == 422
    assert [error["loc"] for error in answer.json()["errors"]] == [[field]]
