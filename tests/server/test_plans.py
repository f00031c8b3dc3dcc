"""`POST /api/v1/runs/plan`, and predictions from the submit to what a run needed, on both engines."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from planned import know_shape, model_shape
from sqlmodel import select

from clients import serve
from rows import add_worker, claim_by
from server.app import create_app
from server.db.session import Database
from server.db.tables import Attempt, Prediction, Run, RunState
from server.db.workers import add_sample
from server.scheduling import GB
from server.settings import Settings
from sparsify_core.events import AttemptFinished, EventWriter, Metrics
from worker.ending import conclude


@pytest.fixture
def deployment(settings: Settings, tmp_path: Path) -> FastAPI:
    """It knows the shape of a model of two layers, which is read in tests/server/test_model_shapes.py."""
    model, text = tmp_path / "sources" / "model", tmp_path / "sources" / "text.jsonl"
    model.mkdir(parents=True)
    (model / "config.json").write_text("{}")
    text.write_text("")
    know_shape(settings, str(model), model_shape(2, 32, 10_000, 64))
    return create_app(settings.model_copy(update={"source_roots": [tmp_path / "sources"]}))


@pytest.fixture
def client(deployment: FastAPI) -> Iterator[TestClient]:
    with serve(deployment) as client:
        yield client


@pytest.fixture
def body(tmp_path: Path) -> dict[str, Any]:
    sources = {"model": str(tmp_path / "sources" / "model"), "dataset": str(tmp_path / "sources" / "text.jsonl")}
    config = sources | {"max_tokens": 4096, "ctx_len": 16, "batch_size": 4}
    return {"config": config | {"exclude_first": 1, "hookpoints": ["layers.1"], "sae": {"k": 4}}}


def plan(client: TestClient, body: dict[str, Any], **changes: Any) -> dict[str, Any]:
    names = ("num_processes", "num_nodes", "min_memory_gb", "labels")
    launch = {name: changes.pop(name) for name in names if name in changes}
    answer = client.post("/api/v1/runs/plan", json=body | launch | {"config": body["config"] | changes})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def codes(found: dict[str, Any]) -> list[str]:
    return [one["code"] for one in found["warnings"]]


def test_a_plan_says_what_a_run_will_need(client: TestClient, deployment: FastAPI, body: dict[str, Any]) -> None:
    with deployment.state.db.write() as session:
        add_worker(session, "here", cpu_count=4)
    found = plan(client, body)
    forecast = found["forecast"]
    assert forecast["num_parameters"] == 1024 * (32 + 32) + 1024 + 32
    assert (forecast["num_steps"], forecast["tokens_per_step"]) == (64, 64)
    assert {need["name"] for need in forecast["needs"]} >= {"model", "coders", "optimizer", "activations"}
    for name in ("memory", "tokens_per_s", "duration_s"):
        assert 0 < forecast[name]["low"] < forecast[name]["expected"] < forecast[name]["high"]
    assert forecast["num_past_runs"] == 0
    assert found["planned_for"] == "4 cores of here"
    assert found["queue"] == {"position": 0, "waits_for": ""}
    assert "torch.distributed.run --standalone" in found["command"].replace(" \\\n ", "")
    assert codes(found) == []
    with deployment.state.db.read() as session:
        assert session.exec(select(Run)).all() == []


def test_the_command_of_several_nodes_says_how_they_meet(client: TestClient, body: dict[str, Any]) -> None:
    command = plan(client, body, num_nodes=2)["command"]
    assert "--nnodes 2" in command
    assert "--rdzv-endpoint HOST:29400" in command
    assert "--standalone" not in command


def test_wrong_configurations_are_answered_as_at_the_launch(client: TestClient, body: dict[str, Any]) -> None:
    for changes in ({"batch_size": 0}, {"dataset": "/etc/passwd"}, {"sae": {"k": 0}}):
        wrong = {"config": body["config"] | changes}
        planned, launched = (client.post(f"/api/v1/runs{path}", json=wrong) for path in ("/plan", ""))
        assert planned.status_code == launched.status_code == 422
        assert planned.json()["errors"] == launched.json()["errors"]


def test_what_the_trainer_would_refuse_is_an_error_of_the_plan(client: TestClient, body: dict[str, Any]) -> None:
    found = plan(client, body, hookpoints=["layers.7"])
    (error,) = [one for one in found["warnings"] if one["severity"] == "error"]
    assert (error["code"], error["field"]) == ("hookpoint_error", "config.hookpoints")
    assert error["message"].endswith("did you mean layers.1, layers.0, layers?")
    assert found["forecast"] is None
    assert codes(plan(client, body, sae={"expansion_factor": 1, "k": 64}))[0] == "config_error"


@pytest.mark.parametrize(
    ("changes", "loc", "message"),
    [
        (
            {"hookpoints": ["layers.7"]},
            ["config", "hookpoints"],
            "no module matches hookpoint 'layers.7': did you",
        ),
        ({"hookpoints": [], "layers": [2]}, ["config", "layers"], "layer 2 does not exist"),
        ({"sae": {"expansion_factor": 1, "k": 64}}, ["config"], "k = 64 is more than the 32 latents of layers.1"),
    ],
)
def test_what_the_trainer_would_refuse_is_not_queued(
    client: TestClient, deployment: FastAPI, body: dict[str, Any], changes: dict[str, Any], loc: list[str], message: str
) -> None:
    """Neither as a run nor among those of a sweep; of a model that nobody has read it is not known."""
    wrong = body | {"config": body["config"] | changes}
    sweep = {"base": wrong, "axes": [{"field": "lr", "values": [0.1, 0.2]}]}
    for path, asked, place in (("runs", wrong, loc), ("sweeps", sweep, ["runs", 0, *loc])):
        answer = client.post(f"/api/v1/{path}", json=asked)
        assert answer.status_code == 422
        assert answer.json()["errors"][0]["loc"] == place
        assert message in answer.json()["errors"][0]["msg"]
    assert client.get("/api/v1/runs").json()["items"] == []
    unread = wrong | {"config": wrong["config"] | {"model": "owner/unread"}}
    assert client.post("/api/v1/runs", json=unread).status_code == 201


def test_a_model_whose_widths_are_not_known_is_queued(
    client: TestClient, deployment: FastAPI, body: dict[str, Any]
) -> None:
    known = model_shape(2, 32, 10_000, 64)
    modules = [module.model_copy(update={"d_in": None, "d_out": None}) for module in known.modules]
    experts = known.model_copy(update={"knows_widths": False, "modules": modules})
    know_shape(deployment.state.settings, body["config"]["model"], experts)
    found = plan(client, body)
    assert found["forecast"] is None
    assert codes(found) == ["width_unknown"]
    assert client.post("/api/v1/runs", json=body).status_code == 201
    assert codes(plan(client, body, hookpoints=["layers.7"])) == ["hookpoint_error"]


@pytest.mark.parametrize(
    ("age_s", "revision", "status"), [(60, None, 422), (7200, None, 201), (7200, "main", 201), (7200, "0" * 40, 422)]
)
def test_what_a_branch_was_hours_ago_refuses_nothing(
    client: TestClient, deployment: FastAPI, body: dict[str, Any], age_s: float, revision: str | None, status: int
) -> None:
    config = body["config"] | {"model": "owner/model", "revision": revision, "hookpoints": ["layers.7"]}
    know_shape(deployment.state.settings, "owner/model", model_shape(2, 32, 10_000, 64), revision=revision, age_s=age_s)
    assert codes(plan(client, body | {"config": config}))[0] == "hookpoint_error"
    assert client.post("/api/v1/runs", json=body | {"config": config}).status_code == status


def test_a_model_that_cannot_be_read_still_has_a_place_in_the_queue(
    client: TestClient, body: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    found = plan(client, body, model="owner/unknown", exclude_first=0)
    assert found["forecast"] is None
    assert codes(found) == ["bos_not_excluded", "model_unknown"]
    assert found["warnings"][1]["message"].endswith(". Memory and speed cannot be told.")
    assert found["queue"] == {"position": 1, "waits_for": "waits for a worker: none is connected; position 1"}


def test_a_gpu_that_is_too_small_comes_with_ways_out(
    client: TestClient, deployment: FastAPI, body: dict[str, Any]
) -> None:
    with deployment.state.db.write() as session:
        add_worker(session, "small", num_gpus=1, memory_gb=2)
        add_worker(session, "large", num_gpus=2, memory_gb=80)
    large = {"sae": {"num_latents": 262_144, "k": 4}, "batch_size": 1024, "max_tokens": None, "auxk_alpha": 0.03}
    found = plan(client, body, **large)
    assert found["planned_for"] == "GPU of small"
    assert {(offer["worker"], offer["fits"]) for offer in found["offers"]} == {("small", False), ("large", True)}
    (error,) = [one for one in found["warnings"] if one["severity"] == "error"]
    assert error["code"] == "does_not_fit"
    chunks, *_, wait = error["fixes"]
    assert wait["values"] == {"min_memory_gb": 80}
    changed = {name.removeprefix("config."): value for name, value in chunks["values"].items()}
    assert "does_not_fit" not in codes(plan(client, body, **large | changed))
    moved = plan(client, body, **large | wait["values"])
    assert moved["planned_for"] == "GPU of large"
    assert "does_not_fit" not in codes(moved)


def test_a_machine_with_too_little_memory_comes_with_ways_out_too(
    client: TestClient, deployment: FastAPI, body: dict[str, Any]
) -> None:
    with deployment.state.db.write() as session:
        measured = dict.fromkeys(("cpu_frac", "memory_used_bytes", "disk_free_bytes", "disk_bytes"), 0)
        worker = add_worker(session, "here", cpu_count=4)
        add_sample(session, worker, measured | {"memory_bytes": 4 * GB}, now=time.time())
    assert plan(client, body)["offers"][0]["fits"] is True
    large = {"sae": {"num_latents": 262_144, "k": 4}, "batch_size": 1024, "max_tokens": None}
    found = plan(client, body, **large)
    assert [offer["fits"] for offer in found["offers"]] == [False]
    (error,) = [one for one in found["warnings"] if one["severity"] == "error"]
    assert error["code"] == "does_not_fit"
    assert "GB for a process that has 4.0 GB" in error["message"]
    assert error["fixes"]
    assert all("min_memory_gb" not in fix["values"] for fix in error["fixes"])
    changed = {name.removeprefix("config."): value for name, value in error["fixes"][0]["values"].items()}
    assert "does_not_fit" not in codes(plan(client, body, **large | changed))
    assert plan(client, body, num_processes=2)["offers"][0]["memory_bytes"] == 2 * GB


def test_the_place_in_the_queue_is_the_one_it_would_get(
    client: TestClient, deployment: FastAPI, body: dict[str, Any]
) -> None:
    with deployment.state.db.write() as session:
        worker = add_worker(session, "here")
        runs = [Run(name=name, config={}) for name in ("trains", "waits")]
        session.add_all(runs)
        session.flush()
        claim_by(session, runs[0].id, worker.id)
    found = plan(client, body)["queue"]
    assert found["position"] == 2
    assert found["waits_for"] == "waits for a CPU slot; the CPU is held by run trains; position 2"
    (offer,) = plan(client, body)["offers"]
    assert (offer["num_devices"], offer["num_free"]) == (1, 0)


def train(database: Database, settings: Settings, run_id: str, worker_id: str, *, rate: float, seconds: float) -> None:
    """The run as a worker carries it out, in no time: as if at `rate` tokens/s for `seconds`, slower at both ends."""
    with database.write() as session:
        fence = claim_by(session, run_id, worker_id, host="host")
        assert fence is not None
        session.get_one(Attempt, (run_id, fence)).started_at = time.time() - seconds
        run = session.get_one(Run, run_id)
        run.state, run.step = RunState.RUNNING, 64
    run_dir = settings.run_dir(run_id)
    (run_dir.checkpoints / "step-00000064").mkdir(parents=True)
    (run_dir.checkpoints / "step-00000064" / "manifest.json").write_text("{}")
    writer = EventWriter(run_dir.events(fence), attempt=fence)
    for step, share in enumerate((0.1, 1, 1, 1, 0.5), start=60):
        writer.write(Metrics(step=step, values={"tokens_per_s": share * rate}))
    writer.write(AttemptFinished(outcome="completed", peak_memory_bytes=2 * 10**9))
    writer.close()
    assert conclude(database, settings, run_id, fence, actor="test", returncode=0) == RunState.COMPLETED


def test_a_prediction_is_kept_compared_and_learned_from(
    client: TestClient, deployment: FastAPI, body: dict[str, Any]
) -> None:
    database, settings = deployment.state.db, deployment.state.settings
    with database.write() as session:
        worker_id = add_worker(session, "first", host="host").id
    before = plan(client, body)["forecast"]
    for _ in range(3):
        run_id = client.post("/api/v1/runs", json=body).json()["id"]
        train(database, settings, run_id, worker_id, rate=before["tokens_per_s"]["expected"] / 4, seconds=100)
    with database.read() as session:
        kept = session.get_one(Prediction, run_id)
    assert kept.device == kept.actual_device == "cpu of host"
    assert kept.actual["duration_s"] == pytest.approx(100, abs=30)
    assert kept.actual["memory_bytes"] == 2e9
    assert kept.counted["tokens_per_s"] == before["tokens_per_s"]["expected"]
    told = client.get(f"/api/v1/runs/{run_id}/prediction").json()
    assert (told["expected"], told["actual"]) == (kept.expected, kept.actual)
    after = plan(client, body)["forecast"]
    assert after["num_past_runs"] == 3
    assert after["tokens_per_s"]["expected"] == pytest.approx(before["tokens_per_s"]["expected"] / 4)
    assert after["memory"]["expected"] == pytest.approx(2e9)
    assert sum(need["num_bytes"] for need in after["needs"]) == pytest.approx(2e9)
    spread = [one["tokens_per_s"]["high"] / one["tokens_per_s"]["low"] for one in (before, after)]
    assert spread[1] < spread[0]


def test_runs_of_another_model_count_once_and_of_the_same_alone(
    client: TestClient, deployment: FastAPI, body: dict[str, Any]
) -> None:
    """Four toy runs a hundred times slower than predicted, then one of the same model at half the rate."""
    with deployment.state.db.write() as session:
        worker_id = add_worker(session, "first", host="host").id
    before = plan(client, body)["forecast"]["tokens_per_s"]["expected"]
    run_ids = [client.post("/api/v1/runs", json=body).json()["id"] for _ in range(5)]
    with deployment.state.db.write() as session:
        for run_id in run_ids[:4]:
            session.get_one(Prediction, run_id).family = "toy"
    expected = []
    for run_id, rate in zip(run_ids, [before / 100] * 4 + [before / 2], strict=True):
        train(deployment.state.db, deployment.state.settings, run_id, worker_id, rate=rate, seconds=100)
        expected.append(plan(client, body)["forecast"]["tokens_per_s"]["expected"])
    assert expected == pytest.approx([before / 10] * 4 + [before / 2])


def test_runs_whose_model_is_read_later_teach_from_then_on(
    client: TestClient, deployment: FastAPI, body: dict[str, Any]
) -> None:
    database, settings = deployment.state.db, deployment.state.settings
    with database.write() as session:
        worker_id = add_worker(session, "first", host="host").id
    unread = body | {"config": body["config"] | {"model": "owner/unread"}}
    run_id = client.post("/api/v1/runs", json=unread).json()["id"]
    assert client.get(f"/api/v1/runs/{run_id}/prediction").status_code == 404
    train(database, settings, run_id, worker_id, rate=123.0, seconds=100)
    assert plan(client, body)["forecast"]["num_past_runs"] == 0
    know_shape(settings, "owner/unread", model_shape(2, 32, 10_000, 64))
    forecast = plan(client, unread)["forecast"]
    assert forecast["num_past_runs"] == 1
    assert forecast["tokens_per_s"]["expected"] == pytest.approx(123.0)
    assert plan(client, body)["forecast"]["num_past_runs"] == 1
    assert client.get(f"/api/v1/runs/{run_id}/prediction").status_code == 404
    client.post("/api/v1/runs", json=body)
    with database.read() as session:  # nobody counts it again
        assert session.get_one(Prediction, run_id).counted["tokens_per_s"] > 0
    assert plan(client, unread)["forecast"]["tokens_per_s"]["expected"] == pytest.approx(123.0)


def test_a_run_that_never_trained_teaches_nothing(
    client: TestClient, deployment: FastAPI, body: dict[str, Any]
) -> None:
    run_id = client.post("/api/v1/runs", json=body).json()["id"]
    client.post(f"/api/v1/runs/{run_id}/cancel")
    with deployment.state.db.read() as session:
        assert session.get_one(Prediction, run_id).actual == {}
    assert client.get("/api/v1/runs/unknown/prediction").status_code == 404
    assert plan(client, body)["forecast"]["num_past_runs"] == 0
