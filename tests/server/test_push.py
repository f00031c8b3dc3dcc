"""Pushing a checkpoint, through the real process and HTTP, to a stand-in of the Hub."""

import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from pydantic import SecretStr
from safetensors.numpy import load, load_file
from sqlmodel import select

from clients import listening, serve
from hub_stand_in import TOKEN, StandIn
from rows import CODER, add_checkpoint, add_run
from server.app import create_app
from server.db.session import Database
from server.db.tables import Checkpoint, HubPush
from server.launch.pushes import end_pushes
from server.services import hub
from server.services.card import model_card
from server.settings import Settings
from services import wait_until


@pytest.fixture
def stand_in() -> StandIn:
    return StandIn()


@pytest.fixture
def hub_app(
    stand_in: StandIn, sqlite_settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[FastAPI]:
    monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
    monkeypatch.setenv("HOME", str(tmp_path))
    with listening(stand_in.app()) as url:
        yield create_app(sqlite_settings.model_copy(update={"hf_endpoint": url}))


@pytest.fixture
def hub_api(hub_app: FastAPI) -> Iterator[TestClient]:
    with serve(hub_app) as client:
        yield client


@pytest.fixture
def checkpoint(hub_app: FastAPI, hub_api: TestClient) -> Checkpoint:
    with hub_app.state.db.write() as session:
        return add_checkpoint(session, hub_app.state.settings, add_run(session, name="<b>run</b> *1*"))


def start(client: TestClient, checkpoint: Checkpoint, **body: Any) -> dict[str, Any]:
    answer = client.post(
        f"/api/v1/checkpoints/{checkpoint.id}/pushes", json={"repo_id": "tester/sae", "token": TOKEN} | body
    )
    assert answer.status_code == 202, answer.text
    assert answer.headers["location"] == f"/api/v1/pushes/{answer.json()['id']}"
    started: dict[str, Any] = answer.json()
    return started


def finished(client: TestClient, push: dict[str, Any]) -> dict[str, Any]:
    def ended() -> dict[str, Any] | None:
        now: dict[str, Any] = client.get(f"/api/v1/pushes/{push['id']}").json()
        return now if now["state"] != "running" else None

    found: dict[str, Any] = wait_until(ended, timeout_s=90, what="the push to end")
    return found


def test_a_push_arrives_private_whole_and_without_local_paths(
    hub_api: TestClient, hub_app: FastAPI, stand_in: StandIn, checkpoint: Checkpoint, caplog: pytest.LogCaptureFixture
) -> None:
    settings: Settings = hub_app.state.settings
    push = start(hub_api, checkpoint)
    arguments: list[str] = []
    while hub_api.get(f"/api/v1/pushes/{push['id']}").json()["state"] == "running":
        for process in psutil.Process().children(recursive=True):
            try:
                if push["id"] in process.cmdline():
                    arguments += [*process.cmdline(), *process.environ().values()]
            except psutil.Error:
                continue
        time.sleep(0.05)
    end = finished(hub_api, push)
    assert (end["state"], end["message"]) == ("completed", "")
    assert end["url"] == f"{settings.hf_endpoint}/tester/sae"
    assert stand_in.private == {"tester/sae": True}
    files = stand_in.files["tester/sae"]
    assert set(files) == {"README.md", "config.json", "eval.json", f"{CODER}/cfg.json", f"{CODER}/sae.safetensors"}
    local = settings.run_dir(checkpoint.run_id).root / checkpoint.path
    sent, kept = load(files[f"{CODER}/sae.safetensors"]), load_file(local / CODER / "sae.safetensors")
    assert sent.keys() == kept.keys()
    assert all((sent[name] == kept[name]).all() for name in kept)
    config = json.loads(files["config.json"])
    assert (config["model"], config["dataset"]) == ("model", "text.jsonl")
    assert b"/secret/place" not in b"".join(files.values())
    card = files["README.md"].decode()
    assert "<b>" not in card
    assert "fvu.dataset.v1" in card
    assert "0.25" in card
    assert 'SparseCoder.load_from_hub("tester/sae", hookpoint="layers.5")' in card
    # The token went to the Hub and nowhere else.
    assert TOKEN in stand_in.seen_tokens
    assert push["id"] in arguments
    assert not [word for word in arguments if TOKEN in word]
    hub_app.state.db.engine.dispose()
    assert not [p for p in settings.data_dir.rglob("*") if p.is_file() and TOKEN.encode() in p.read_bytes()]
    assert TOKEN not in caplog.text


def test_a_wrong_token_is_one_clear_sentence(hub_api: TestClient, checkpoint: Checkpoint) -> None:
    end = finished(hub_api, start(hub_api, checkpoint, token="hf_wrong"))
    assert end["state"] == "failed"
    assert end["message"] == "The Hub does not accept the token: make a new one with write access."


def test_private_weights_do_not_go_into_a_public_repository(
    hub_api: TestClient, stand_in: StandIn, checkpoint: Checkpoint
) -> None:
    stand_in.files["tester/sae"], stand_in.private["tester/sae"] = {}, False
    end = finished(hub_api, start(hub_api, checkpoint))
    assert end["state"] == "failed"
    assert "is public" in end["message"]
    assert stand_in.files["tester/sae"] == {}
    assert finished(hub_api, start(hub_api, checkpoint, private=False))["state"] == "completed"


@pytest.mark.parametrize(("status", "words"), [(403, "may not write"), (404, "does not know"), (500, "HTTP 500")])
def test_refusals_of_the_hub_are_named(
    hub_api: TestClient, stand_in: StandIn, checkpoint: Checkpoint, status: int, words: str
) -> None:
    stand_in.refuse_with = status
    end = finished(hub_api, start(hub_api, checkpoint))
    assert end["state"] == "failed"
    assert words in end["message"]


def test_a_hub_that_cannot_be_reached_is_named(sqlite_settings: Settings) -> None:
    app = create_app(sqlite_settings.model_copy(update={"hf_endpoint": "http://127.0.0.1:9"}))
    with serve(app) as client:
        with app.state.db.write() as session:
            checkpoint = add_checkpoint(session, sqlite_settings, add_run(session))
        end = finished(client, start(client, checkpoint))
    assert end["message"].startswith("The Hub at http://127.0.0.1:9 cannot be reached")


@pytest.mark.parametrize(
    "body",
    [
        {"repo_id": "sae", "token": TOKEN},
        {"repo_id": "a/b/c", "token": TOKEN},
        {"repo_id": "../x", "token": TOKEN},
        {"repo_id": "tester/..", "token": TOKEN},
        {"repo_id": "tester/a b", "token": TOKEN},
        {"repo_id": "-x/--help", "token": TOKEN},
        {"repo_id": "tester/sae"},
        {"repo_id": "tester/sae", "token": ""},
        {"repo_id": "tester/sae", "token": "a\nb"},
        {"repo_id": "tester/sae", "token": TOKEN, "private": "no"},
        {"repo_id": "tester/sae", "token": TOKEN, "endpoint": "http://x"},
    ],
)
def test_wrong_pushes_are_refused_and_the_token_is_not_repeated(
    sqlite_api: TestClient, sqlite_app: FastAPI, checkpoint_id: str, body: dict[str, Any]
) -> None:
    answer = sqlite_api.post(f"/api/v1/checkpoints/{checkpoint_id}/pushes", json=body)
    assert answer.status_code == 422
    assert TOKEN not in answer.text
    assert sqlite_api.get("/api/v1/pushes").json()["items"] == []


def test_the_same_push_twice_at_once_is_refused(
    sqlite_api: TestClient, sqlite_app: FastAPI, checkpoint_id: str
) -> None:
    with sqlite_app.state.db.write() as session:
        run_id = session.get_one(Checkpoint, checkpoint_id).run_id
        session.add(HubPush(checkpoint_id=checkpoint_id, run_id=run_id, repo_id="tester/sae", pid=os.getpid()))
    body = {"repo_id": "tester/sae", "token": TOKEN}
    assert sqlite_api.post(f"/api/v1/checkpoints/{checkpoint_id}/pushes", json=body).status_code == 409


def test_pushes_whose_process_is_gone_are_marked_at_start(database: Database, settings: Settings) -> None:
    with database.write() as session:
        checkpoint = add_checkpoint(session, settings, add_run(session))
        for pid in (0, 2**22 - 7, os.getpid()):  # never started, gone, someone else's by now
            session.add(HubPush(checkpoint_id=checkpoint.id, run_id=checkpoint.run_id, repo_id=f"a/b{pid}", pid=pid))
    with database.write() as session:
        assert hub.fail_interrupted(session, time.time() - 60) == 0  # a server that started before they began
        assert hub.fail_interrupted(session, time.time() + 1) == 3
    with database.read() as session:
        assert {p.message for p in hub.list_pushes(session)} == {"The upload was interrupted: push again."}


def test_a_process_that_dies_is_noticed(
    database: Database, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with database.write() as session:
        checkpoint = add_checkpoint(session, settings, add_run(session))
        push = HubPush(checkpoint_id=checkpoint.id, run_id=checkpoint.run_id, repo_id="a/b")
        session.add(push)
    monkeypatch.setattr(hub.sys, "executable", "/bin/false")
    hub.spawn(settings, push.id, SecretStr(TOKEN))

    def state() -> bool:
        with database.read() as session:
            return session.get_one(HubPush, push.id).state == "failed"

    wait_until(state, timeout_s=20, what="the push to be marked")


def test_the_card_names_the_base_model_only_if_it_is_on_the_hub() -> None:
    def card(model: str) -> str:
        config = {"model": model, "dataset": "/x/text.jsonl"}
        return model_card(repo_id="a/b", name="n", step=1, config=config, evaluation={}, coders=["layers.5"])

    assert "base_model: owner/model" in card("owner/model")
    assert "base_model" not in card("/data/model")
    assert "/data" not in card("/data/model")


def test_the_card_has_a_row_per_coder_and_explains_each_metric() -> None:
    evaluation = {"h.0": {"eval_fvu": 0.25, "eval_kl": 0.5}, "h.1": {"eval_kl": 1.5, "unknown": 3}}
    card = model_card(repo_id="a/b", name="n", step=1, config={}, evaluation=evaluation, coders=["h.0", "h.1"])
    assert "| Sparse coder | FVU (held out) | KL divergence (held out) |\n| --- | --- | --- |\n" in card
    assert "| `h.0` | 0.2500 | 0.5000 |\n| `h.1` | – | 1.5000 |\n" in card
    assert card.count("Excluded positions keep") == 1
    assert "`kl.v1`" in card


def test_an_upload_that_hangs_ends_with_sparseboard(
    sqlite_settings: Settings,
    sqlite_app: FastAPI,
    sqlite_api: TestClient,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with sqlite_app.state.db.write() as session:
            checkpoint = add_checkpoint(session, sqlite_settings, add_run(session))
            hub.start_push(
                session,
                checkpoint.id,
                settings=sqlite_settings.model_copy(update={"hf_endpoint": endpoint}),
                repo_id="tester/sae",
                token=SecretStr(TOKEN),
                actor="user",
            )

        def pid() -> int:
            with sqlite_app.state.db.read() as session:
                return session.exec(select(HubPush.pid)).one()

        process = psutil.Process(wait_until(pid, timeout_s=60, what="the upload to begin"))
        end_pushes(sqlite_settings)
        wait_until(lambda: not process.is_running(), timeout_s=10, what="the upload to be gone")
        with sqlite_app.state.db.read() as session:
            push = session.exec(select(HubPush)).one()
    assert (push.state, push.message) == ("failed", "The upload was interrupted: push again.")
