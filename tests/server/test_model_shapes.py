"""`GET /api/v1/models/shape`: a child process reads the model, once; afterwards the answer lies on disk."""

import fcntl
import stat
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from clients import serve
from server.app import create_app
from server.services import model_shapes
from server.services.model_shapes import known_shape
from server.settings import Settings


@pytest.fixture
def children(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that gets a line for every child process."""
    log, python = tmp_path / "children", tmp_path / "python"
    python.write_text(f'#!/bin/sh\necho "$*" >> {log}\nexec {sys.executable} "$@"\n')
    python.chmod(python.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(sys, "executable", str(python))
    return log


def test_a_model_is_read_once_for_all_who_ask(sqlite_settings: Settings, tiny_model: Path, children: Path) -> None:
    settings = sqlite_settings.model_copy(update={"source_roots": [tiny_model.parent]})
    with serve(create_app(settings)) as client, ThreadPoolExecutor(3) as pool:
        asked = [pool.submit(client.get, "/api/v1/models/shape", params={"model": str(tiny_model)}) for _ in range(3)]
        answers = [future.result().json() for future in asked]
    assert answers[0] == answers[1] == answers[2]
    assert (answers[0]["layers"], answers[0]["num_layers"], answers[0]["hidden_size"]) == ("layers", 2, 32)
    module = next(m for m in answers[0]["modules"] if m["path"] == "layers.1.mlp.down_proj")
    assert module == {
        "path": "layers.1.mlp.down_proj",
        "kind": "Linear",
        "d_in": 64,
        "d_out": 32,
        "num_parameters": 2048,
    }
    assert len(children.read_text().splitlines()) == 1
    with serve(create_app(settings)) as client:
        assert client.get("/api/v1/models/shape", params={"model": str(tiny_model)}).json() == answers[0]
    assert len(children.read_text().splitlines()) == 1


def test_an_unknown_model_is_answered_with_what_to_do(
    sqlite_api: TestClient, children: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    answers = [sqlite_api.get("/api/v1/models/shape?model=owner/unknown") for _ in range(2)]
    for answer in answers:
        assert answer.status_code == 422
        assert answer.json()["errors"][0]["loc"] == ["query", "model"]
        assert "not on this machine, and HF_HUB_OFFLINE=1 forbids to download it" in answer.json()["detail"]
    assert len(children.read_text().splitlines()) == 1


def test_whoever_would_wait_behind_many_is_told_at_once(sqlite_api: TestClient, children: Path) -> None:
    with ExitStack() as others:
        for _ in range(model_shapes.MAX_READERS):
            others.enter_context(model_shapes.reader())
        answer = sqlite_api.get("/api/v1/models/shape?model=owner/another")
    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "10")
    assert not children.exists()


def test_whoever_waits_for_a_reader_that_hangs_is_told_after_a_while(
    sqlite_api: TestClient, sqlite_settings: Settings, children: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_shapes, "LIMIT_S", 0.2)
    lock = model_shapes.answer_file(sqlite_settings, "owner/another").with_suffix(".lock")
    lock.parent.mkdir()
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        answer = sqlite_api.get("/api/v1/models/shape?model=owner/another")
    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "60")
    assert "Somebody else has been reading owner/another" in answer.json()["detail"]
    assert not children.exists()


@pytest.mark.parametrize(
    ("query", "place", "message"),
    [
        ("model=/etc", "model", "outside the folders"),
        ("model=--help", "model", "neither a Hub id"),
        ("model=a/b&revision=--help", "revision", "is no branch"),
        ("model=a/b&revision=../../x%0a", "revision", "is no branch"),
    ],
)
def test_nothing_is_started_for_what_may_not_be_named(
    sqlite_api: TestClient, children: Path, query: str, place: str, message: str
) -> None:
    answer = sqlite_api.get(f"/api/v1/models/shape?{query}")
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["loc"] == ["query", place]
    assert message in answer.json()["detail"]
    assert not children.exists()


def test_a_folder_without_a_configuration_is_no_model_and_no_defect(sqlite_settings: Settings, tmp_path: Path) -> None:
    settings = sqlite_settings.model_copy(update={"source_roots": [tmp_path]})
    (tmp_path / "empty").mkdir()
    assert known_shape(settings, str(tmp_path / "empty")) is None
    with serve(create_app(settings)) as client:
        body = {"config": {"model": str(tmp_path / "empty"), "dataset": "owner/data"}}
        assert client.post("/api/v1/runs", json=body).status_code == 201
