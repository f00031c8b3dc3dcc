"""Runs that start from a checkpoint of another one: which state they keep, and who comes from whom."""

import html
import json
import os
import re
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from planned import SMOLLM2_135M, know_shape

from rows import add_checkpoint, add_run
from server.db.tables import Run
from server.settings import Settings
from sparsify_core.config import RunConfig
from sparsify_core.manifest import delete_checkpoint
from sparsify_core.rundir import CheckpointDir


@pytest.fixture
def saved(app: FastAPI, visitor: TestClient, settings: Settings) -> tuple[str, CheckpointDir]:
    """Id and folder of a checkpoint of step 20, with the configuration of its run and a training state."""
    with app.state.db.write() as session:
        run = add_run(session, name="fox")
        row = add_checkpoint(session, settings, run)
        folder = settings.run_dir(run.id).checkpoint(20)
        folder.config.write_text(json.dumps(run.config))
        folder.training_state.write_text("{}")
        return row.id, folder


@pytest.mark.parametrize(
    ("changes", "keeps_state"),
    [({}, True), ({"lr": 0.001, "sae.k": 16}, True), ({"batch_size": 4}, False), ({"max_tokens": 10**6}, False)],
)
def test_a_fork_keeps_the_state_where_the_changes_allow_it(
    visitor: TestClient,
    settings: Settings,
    saved: tuple[str, CheckpointDir],
    changes: dict[str, Any],
    keeps_state: bool,
) -> None:
    checkpoint_id, folder = saved
    answer = visitor.post(f"/api/v1/checkpoints/{checkpoint_id}/fork", json={"changes": changes})
    assert answer.status_code == 201
    run = answer.json()
    parent = visitor.get(f"/api/v1/checkpoints/{checkpoint_id}").json()["run_id"]
    assert (run["name"], run["forked_from"], run["forked_step"]) == ("fox from step 20", parent, 20)
    kept = settings.run_dir(run["id"]).origin(20)
    assert run["config"]["finetune"] == str(kept.root.absolute())
    assert run["config"]["finetune_state"] is keeps_state
    delete_checkpoint(folder)
    assert kept.manifest.is_file()
    assert kept.coder("layers.5").weights.is_file()


@pytest.mark.parametrize(
    ("max_tokens", "changes", "keeps_state"),
    [(None, {}, False), (None, {"num_epochs": 2}, True), (20 * 64, {"num_epochs": 2}, False)],
)
def test_a_fork_of_the_last_step_starts_from_the_weights(
    app: FastAPI,
    visitor: TestClient,
    saved: tuple[str, CheckpointDir],
    max_tokens: int | None,
    changes: dict[str, Any],
    keeps_state: bool,
) -> None:
    checkpoint_id, folder = saved
    with app.state.db.write() as session:
        run = session.get_one(Run, folder.root.parents[1].name)
        run.total_steps, run.tokens_per_step = 20, 64
        run.config = run.config | {"max_tokens": max_tokens}
        folder.config.write_text(json.dumps(run.config))
    fields = "".join(f"&config.{name}={value}" for name, value in changes.items())
    page = words(visitor.get(f"/runs/new?fork={checkpoint_id}{fields}").text)
    assert ("step 20 was the last of its run" in page) is not keeps_state
    answer = visitor.post(f"/api/v1/checkpoints/{checkpoint_id}/fork", json={"changes": changes})
    assert answer.json()["config"]["finetune_state"] is keeps_state


@pytest.mark.parametrize(
    ("changes", "loc"),
    [
        ({"sae.expansion_factor": 8}, ["config", "sae", "expansion_factor"]),
        ({"sae.transcode": True}, ["config", "sae", "transcode"]),
        ({"lr": "fast"}, ["config", "lr"]),
        ({"model": "/etc/passwd"}, ["config", "model"]),
        ({"nonsense": 1}, ["changes", "nonsense"]),
    ],
)
def test_what_cannot_be_forked_leaves_nothing_behind(
    app: FastAPI,
    visitor: TestClient,
    settings: Settings,
    saved: tuple[str, CheckpointDir],
    changes: dict[str, Any],
    loc: list[str],
) -> None:
    answer = visitor.post(f"/api/v1/checkpoints/{saved[0]}/fork", json={"changes": changes})
    assert (answer.status_code, answer.json()["errors"][0]["loc"]) == (422, loc)
    assert [path.name for path in settings.runs_dir.iterdir()] == [saved[1].root.parents[1].name]


def test_a_checkpoint_whose_files_are_gone(visitor: TestClient, saved: tuple[str, CheckpointDir]) -> None:
    delete_checkpoint(saved[1])
    assert visitor.post(f"/api/v1/checkpoints/{saved[0]}/fork", json={}).status_code == 404


def test_the_checkpoint_is_kept_before_anything_is_locked(
    app: FastAPI,
    visitor: TestClient,
    settings: Settings,
    saved: tuple[str, CheckpointDir],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It may be gigabytes, and SQLite has one writer."""
    link, linked = os.link, []

    def link_while_others_write(source: Path, target: Path) -> None:
        if not settings.database_url:
            with sqlite3.connect(settings.data_dir / "sparseboard.db", timeout=0) as other:
                other.execute("BEGIN IMMEDIATE")
        linked.append(target)
        link(source, target)

    monkeypatch.setattr(os, "link", link_while_others_write)
    assert visitor.post(f"/api/v1/checkpoints/{saved[0]}/fork", json={}).status_code == 201
    assert linked


def words(page: str) -> str:
    return " ".join(re.sub(r"<[^>]+>", " ", page).split())


def test_the_form_forks_and_both_runs_say_so(
    app: FastAPI, visitor: TestClient, saved: tuple[str, CheckpointDir]
) -> None:
    checkpoint_id, folder = saved
    page = visitor.get(f"/runs/new?fork={checkpoint_id}&config.lr=0.002").text
    assert 'name="name" value="fox from step 20"' in page
    assert "It goes on at step 20 with the optimizer's state" in words(page).replace("&#39;", "'")
    asked = {"fork": checkpoint_id, "name": "child", "config.model": "owner/model", "config.dataset": "owner/data"}
    asked |= {"config.hookpoints": "layers.5", "config.lr": "0.002"}
    call = html.unescape(visitor.post("/runs/new/convert", data=asked | {"to": "api"}).text)
    assert f"/api/v1/checkpoints/{checkpoint_id}/fork" in call
    assert '"changes": {\n    "lr": 0.002\n  }' in call
    elsewhere = visitor.post("/runs/new/convert", data=asked | {"to": "api", "num_processes": "2"}).text
    assert "a fork over the API has its parent&#39;s num_processes" in elsewhere
    worse = visitor.post("/runs/new/changes", data=asked | {"config.batch_size": "4"}, headers={"HX-Request": "true"})
    assert "It starts at step 0 from the checkpoint" in words(worse.text)
    assert "batch_size" in worse.text
    refused = visitor.post("/runs/new", data=asked | {"config.sae.expansion_factor": "8"})
    assert refused.status_code == 422
    assert re.search(r'name="config.sae.expansion_factor" value="8"[^>]*aria-invalid', refused.text)
    where = visitor.post("/runs/new", data=asked).headers["location"]
    late = visitor.post("/runs/new", data=asked | {"fork": "0" * 26, "name": "typed for long"})
    assert late.status_code == 422
    assert "There is no such checkpoint. What this form was filled in from was deleted meanwhile" in words(late.text)
    assert 'value="typed for long"' in late.text
    assert 'name="fork"' not in late.text
    child = words(visitor.get(where).text).replace("&#39;", "'")
    assert "forked from fox at step 20, with the optimizer's state; differs in lr none → 0.002" in child
    parent = folder.root.parents[1].name
    assert "fork of step 20 child" in words(visitor.get(f"/runs/{parent}").text)
    with app.state.db.read() as session:
        assert session.get_one(Run, where.rpartition("/")[2]).forked_from == parent


def test_what_is_left_of_a_fork_is_planned_and_predicted(
    app: FastAPI, visitor: TestClient, settings: Settings, saved: tuple[str, CheckpointDir]
) -> None:
    """Of 100 steps of the parent 80 behind its checkpoint; all of them where the weights alone are kept."""
    checkpoint_id, folder = saved
    know_shape(settings, "owner/model", SMOLLM2_135M)
    per_step = RunConfig().batch_size * RunConfig().ctx_len
    with app.state.db.write() as session:
        parent = session.get_one(Run, folder.root.parents[1].name)
        parent.config = {**parent.config, "max_tokens": 100 * per_step}
        folder.config.write_text(json.dumps(parent.config))
    asked = {"fork": checkpoint_id, "config.hookpoints": "layers.5", "config.max_tokens": str(100 * per_step)}
    asked |= {"name": "child", "config.model": "owner/model", "config.dataset": "owner/data"}
    planned = [
        words(visitor.post("/runs/plan", data=asked | more, headers={"HX-Request": "true"}).text)
        for more in ({}, {"config.optimizer": "adam"})
    ]
    assert f"80 steps of {per_step:,} tokens, behind step 20" in planned[0]
    assert f"100 steps of {per_step:,} tokens" in planned[1]
    assert "behind step" not in planned[1]
    predicted = []
    for more in ({}, {"config.optimizer": "adam"}):
        where = visitor.post("/runs/new", data=asked | more).headers["location"]
        told = visitor.get(f"/api/v1{where}/prediction").json()["expected"]
        predicted.append(told["duration_s"][0])
    assert predicted[0] < predicted[1]
    shutil.rmtree(folder.root)
    gone = visitor.post("/runs/plan", data=asked, headers={"HX-Request": "true"})
    assert "The files of the checkpoint of step 20 are gone." in gone.text


def test_lines_as_browsers_send_them_are_no_change(
    app: FastAPI, visitor: TestClient, saved: tuple[str, CheckpointDir]
) -> None:
    checkpoint_id, folder = saved
    with app.state.db.write() as session:
        run = session.get_one(Run, folder.root.parents[1].name)
        run.config = run.config | {"hookpoints": ["layers.5", "layers.6"]}
    asked = {"fork": checkpoint_id, "config.hookpoints": "layers.5\r\nlayers.6"}
    assert "It goes on at step 20" in words(visitor.post("/runs/new/changes", data=asked).text)
