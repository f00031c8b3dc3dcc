"""A database and run directories with runs in every state, for the page tests and screenshots."""

import json
import math
import random
import time
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file
from sqlmodel import Session

from server.db.series import Point, drawn_on, number
from server.db.session import Database
from server.db.tables import (
    Attempt,
    AttemptNode,
    Checkpoint,
    HubPush,
    Intent,
    MetricPoint,
    Prediction,
    Run,
    RunEvent,
    RunState,
    StepTiming,
    Sweep,
    Worker,
    WorkerSample,
)
from server.queue import PROTOCOL
from server.settings import Settings
from sparsify_core.config import RunConfig
from sparsify_core.manifest import write_manifest
from sparsify_core.rundir import CheckpointDir

NUM_LATENTS = 512
CTX_LEN = 32
WORDS = [
    " the",
    " LORD",
    " said",
    " unto",
    " Moses",
    ",",
    " and",
    " he",
    " shall",
    " be",
    ".",
    "\n",
    " Israel",
    " king",
    "  ",
    "eth",
]
LOG = "".join(f"[rank0] step {n:4d}  fvu {1 / (1 + n / 40):.4f}\n" for n in range(1, 60))

TORCHRUN = """\
E1126 01:32:45.842000 32174 torch/distributed/elastic/multiprocessing/api.py:1002] failed (exitcode: 1) local_rank: 0 \
(pid: 32240) of binary: /usr/bin/python
Traceback (most recent call last):
  File "<frozen runpy>", line 198, in _run_module_as_main
    raise ChildFailedError(
torch.distributed.elastic.multiprocessing.errors.ChildFailedError:
============================================================
sparsify_core FAILED
"""
"""How torchrun ends a log when a training process has failed, shortened."""


def seed(database: Database, settings: Settings) -> dict[str, str]:
    """Fill an empty database. Returns ids by what they are."""
    now = time.time()
    ids: dict[str, str] = {}
    with database.write() as session:
        worker = Worker(
            name="lab-2",
            host="lab-2",
            pid=4211,
            protocol=PROTOCOL,
            labels=["h100"],
            cpu_count=32,
            devices=[_gpu(0, busy=0.97), _gpu(1, busy=0.0)],
            started_at=now - 90_000,
            consumed_at=now,
        )
        old = Worker(name="laptop", host="laptop", pid=812, cpu_count=8, started_at=now - 400_000, seen_at=now - 86_000)
        session.add_all([worker, old])
        session.flush()
        session.add_all([sample_at(worker.id, now - 10 * age) for age in range(180)])
        for state in (
            RunState.COMPLETED,
            RunState.FAILED,
            RunState.CANCELLED,
            RunState.RUNNING,
            RunState.STOPPING,
            RunState.STARTING,
            RunState.QUEUED,
            RunState.PAUSED,
            RunState.RETRY_WAIT,
        ):
            run = _run(session, settings, state, now, worker.id)
            ids[state] = run.id
        for number, why in enumerate(WAITS_FOR):
            _queued(session, number, why, now)
        session.add(_prediction(ids[RunState.COMPLETED]))
        many = _run(session, settings, RunState.COMPLETED, now, worker.id, coders=["layers.3", "layers.5", "layers.7"])
        many.cloned_from = ids[RunState.COMPLETED]
        ids |= {"many": many.id, "worker": worker.id}
        ids["checkpoint"] = _checkpoint(session, settings, ids[RunState.COMPLETED], ["layers.5"], now)
        ids["checkpoint_many"] = _checkpoint(session, settings, many.id, ["layers.3", "layers.5", "layers.7"], now)
        ids["sweep"] = _sweep(session, now)
        session.add_all(
            [
                HubPush(
                    checkpoint_id=ids["checkpoint"],
                    run_id=ids[RunState.COMPLETED],
                    repo_id="kjv-lab/smollm2-l5",
                    state="completed",
                    url="https://huggingface.co/kjv-lab/smollm2-l5",
                    created_at=now - 4000,
                ),
                HubPush(
                    checkpoint_id=ids["checkpoint"],
                    run_id=ids[RunState.COMPLETED],
                    repo_id="kjv-lab/private",
                    state="failed",
                    message="The Hub refused the token: it has no write access to kjv-lab.",
                    created_at=now - 8000,
                ),
            ]
        )
    return ids


def _gpu(index: int, *, busy: float) -> dict[str, object]:
    what = {"index": index, "name": "NVIDIA H100 80GB HBM3", "memory_bytes": 85_000_000_000, "uuid": f"GPU-{index}"}
    load = {"utilization_frac": busy, "used_bytes": round(60e9 * busy), "num_processes": int(busy > 0)}
    return what | load | {"temperature_c": 34 + round(28 * busy), "power_w": 70 + 500 * busy}


def sample_at(worker_id: str, ts: float) -> WorkerSample:
    """What a worker with two GPUs, of which one is busy, measured."""
    noise = random.Random(round(ts))
    devices = [
        {
            "index": 0,
            "utilization_frac": 0.9 + 0.1 * noise.random(),
            "used_bytes": 58_200_000_000,
            "temperature_c": 61,
            "power_w": 540 + 40 * noise.random(),
        },
        {"index": 1, "utilization_frac": 0.0, "used_bytes": 600_000_000, "temperature_c": 34, "power_w": 71.0},
    ]
    return WorkerSample(
        worker_id=worker_id,
        ts=ts,
        keep_until=ts + 86_400,
        cpu_frac=0.3 + 0.2 * noise.random(),
        memory_used_bytes=round(41e9 + 2e9 * noise.random()),
        memory_bytes=256_000_000_000,
        disk_free_bytes=812_000_000_000,
        disk_bytes=2_000_000_000_000,
        devices=devices,
    )


NAMES = {
    RunState.COMPLETED: "SmolLM2 layer 5, k 32",
    RunState.FAILED: "gpt2-small resid, all layers",
    RunState.CANCELLED: "lr sweep 3e-4",
    RunState.RUNNING: "SmolLM2 layer 5, k 64, signum",
    RunState.STOPPING: "transcoder layers.7.mlp",
    RunState.STARTING: "layer 12 with exclude_first",
    RunState.PAUSED: "width sweep \u00d716",
    RunState.RETRY_WAIT: "layer 9, gated",
    RunState.QUEUED: "a name that is rather long because people do write such names for their experiments",
}


WAITS_FOR = (
    "needs 2 GPUs of \u226524 GB, 1 is free: waits for SmolLM2 layer 5, k 64, signum, which ends in about 12 min",
    "behind 2 runs in the queue",
)


def _queued(session: Session, number: int, why: str, now: float) -> None:
    """A run that waits behind the one of `NAMES`."""
    config = RunConfig(model="HuggingFaceTB/SmolLM2-135M", dataset="kjv.jsonl", hookpoints=[f"layers.{number + 8}"])
    times = {"created_at": now - 400 + number, "queued_at": now - 400 + number, "rank": now - 400 + number}
    name = f"depth sweep, layer {number + 8}"
    run = Run(name=name, config=config.model_dump(mode="json"), waits_for=why, num_processes=2 - number, **times)
    session.add(run)
    session.flush()
    session.add(RunEvent(run_id=run.id, actor="user", kind="queued", ts=now - 400))


def _prediction(run_id: str) -> Prediction:
    expected = {"tokens_per_s": [9800.0, 7400.0, 13_000.0], "duration_s": [211.0, 150.0, 300.0]}
    expected |= {"memory_bytes": [1.31e9, 1.12e9, 1.53e9], "disk_bytes": [1.283e8] * 3}
    actual = {"tokens_per_s": 11_500.0, "duration_s": 196.0, "memory_bytes": 1.29e9, "disk_bytes": 1.283e8}
    device = "cpu of lab-2"
    return Prediction(
        run_id=run_id,
        device=device,
        family="f",
        counted={"tokens_per_s": 8000.0, "memory_bytes": 1.2e9},
        expected=expected,
        actual_device=device,
        actual=actual,
    )


def _run(
    session: Session, settings: Settings, state: RunState, now: float, worker_id: str, coders: list[str] | None = None
) -> Run:
    coders = coders or ["layers.5"]
    config = RunConfig(
        model="HuggingFaceTB/SmolLM2-135M",
        dataset="kjv.jsonl",
        hookpoints=coders,
        max_tokens=2_048_000,
        exclude_first=1,
    ).model_dump(mode="json")
    started = None if state == RunState.QUEUED else now - random.Random(state).randint(300, 9000)
    run = Run(
        name=NAMES[state] if len(coders) == 1 else "three layers at once",
        state=state,
        config=config,
        created_at=now - 10_000,
        queued_at=now - 10_000,
        rank=now - 10_000,
        started_at=started if state not in (RunState.PAUSED, RunState.RETRY_WAIT) else None,
        fence=0 if started is None else 1,
        attempt=0 if started is None else 1,
    )
    if state in (RunState.COMPLETED, RunState.FAILED, RunState.CANCELLED):
        run.finished_at = (started or now) + 280
    session.add(run)
    session.flush()
    session.add(RunEvent(run_id=run.id, actor="user", kind="queued", ts=now - 10_000))
    if started is not None:
        _attempt(session, settings, run, worker_id, started)
    if state == RunState.FAILED:
        run.reason_code = "hookpoint_error"
        run.message = (
            "No module matches the hookpoint layers.99: the model has layers.0 to layers.29. Correct the pattern."
        )
        run.log_tail = "loading model\nHookpointError: no module matches layers.99\n" + TORCHRUN
        moved = {"from_state": "starting", "reason_code": run.reason_code}
        session.add(RunEvent(run_id=run.id, actor="supervisor", kind="failed", detail=run.message, **moved))
    elif state not in (RunState.STARTING, RunState.QUEUED):
        steps = {RunState.COMPLETED: 200, RunState.CANCELLED: 73}.get(state, 120)
        run.phase = "training" if state == RunState.RUNNING else ""
        if state == RunState.RETRY_WAIT:
            run.not_before, run.failures, run.reason_code = now + 480, 1, "crashed"
            run.message = "a training process was killed by signal 11 (SIGSEGV)"
        run.step, run.total_steps, run.tokens_per_step, run.coders = steps, 200, 10_240, coders
        _metrics(session, run, coders, steps, started or now)
        run.intent = {RunState.PAUSED: Intent.PAUSE, RunState.STOPPING: Intent.CANCEL}.get(state, Intent.RUN)
    elif state == RunState.STARTING:
        run.phase = "loading model"
    session.add(run)
    session.flush()
    return run


def _attempt(session: Session, settings: Settings, run: Run, worker_id: str, started: float) -> None:
    session.add(Attempt(run_id=run.id, attempt=1, started_at=started))
    session.add(AttemptNode(run_id=run.id, attempt=1, worker_id=worker_id, host="lab-2", devices=[0]))
    moved = {"from_state": "queued", "kind": "starting", "detail": "on lab-2"}
    session.add(RunEvent(run_id=run.id, actor="worker lab-2", ts=started, **moved))
    log = settings.run_dir(run.id).log(1)
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text(LOG)


def points_at(run_id: str, coders: list[str], step: int, ts: float, seq: int) -> list[MetricPoint]:
    """The points of one step, as ingest writes them."""
    noise = random.Random(f"{run_id}{step}")
    values: dict[str, float] = {"lr": 1e-3 * min(1, step / 20), "tokens_per_s": 11_500 + noise.gauss(0, 300)}
    for index, coder in enumerate(coders):
        fvu = (0.17 + 0.04 * index) + 0.8 * math.exp(-step / 30) + noise.gauss(0, 0.006)
        values |= {f"fvu/{coder}": fvu, f"dead_frac/{coder}": 0.03 * math.exp(-step / 90), f"l0/{coder}": 31.7}
        if step % 50 == 0:
            values[f"eval_fvu/{coder}"] = fvu - 0.01
    return [MetricPoint(run_id=run_id, attempt=1, seq=seq, key=k, step=step, ts=ts, value=v) for k, v in values.items()]


def _metrics(session: Session, run: Run, coders: list[str], steps: int, started: float) -> None:
    latest: dict[str, float] = {}
    drawn: list[Point] = []
    for step in range(1, steps + 1):
        points = points_at(run.id, coders, step, started + step, step + 3)
        session.add_all(points)
        latest |= {p.key: p.value for p in points if p.value is not None}
        drawn += [Point(step, 1, p.seq, p.ts, number(p.value, p.kind)) for p in points if p.key == f"fvu/{coders[0]}"]
    run.latest, run.spark = latest, drawn_on(run.spark, drawn)
    floor_ms = FLOOR_MS if len(coders) == 1 else None  # several coders train on a device without known rates
    measured = [step for step in (6, 50, 100, 150, 200) if step <= steps]
    session.add_all([timing_at(run.id, step, started + step, 10_000 + step, floor_ms) for step in measured])


def _sweep(session: Session, now: float) -> str:
    """Twelve runs over k and lr, of which the last two have not started."""
    ks, lrs = [16, 32, 64, 128], [0.0003, 0.001, 0.003]
    axes = [{"field": "sae.k", "values": ks}, {"field": "lr", "values": lrs}]
    base = {"name": "SmolLM2 layer 5", "config": RunConfig().model_dump(mode="json")}
    sweep = Sweep(name="SmolLM2 layer 5", spec={"base": base, "axes": axes, "draws": None, "seed": 0})
    session.add(sweep)
    session.flush()
    for index, (k, lr) in enumerate((k, lr) for k in ks for lr in lrs):
        config = RunConfig(hookpoints=["layers.5"], lr=lr).model_dump(mode="json")
        config["sae"]["k"] = k
        fvu = 0.5 / k**0.3 + 0.03 * abs(math.log(lr / 0.0012))
        latest = {"eval_l0/layers.5": k - 0.4, "eval_fvu/layers.5": fvu, "eval_delta_ce/layers.5": fvu / 2}
        state = RunState.COMPLETED if index < 10 else RunState.QUEUED
        place = {"created_at": now - 20_000 + index, "rank": now - 20_000 + index, "queued_at": now - 20_000}
        run = Run(name=f"SmolLM2 layer 5 k={k} lr={lr:g}", state=state, config=config, sweep_id=sweep.id, **place)
        if index < 10:
            run.latest, run.step, run.total_steps, run.tokens_per_step = latest, 200, 200, 10_240
            run.started_at, run.finished_at = now - 19_000, now - 18_000
        session.add(run)
    return sweep.id


PARTS_MS = {"data": 0.4, "lm": 26.9, "encode": 2.7, "select": 0.8, "decode": 0.5, "backward": 1.9, "optimizer": 0.4}
FLOOR_MS = {"lm": 12.7, "encode": 1.8, "decode": 0.3, "backward": 0.6, "optimizer": 0.13}


def timing_at(run_id: str, step: int, ts: float, seq: int, floor_ms: dict[str, float] | None) -> StepTiming:
    """A measured step, as ingest writes it."""
    noise = random.Random(f"{run_id}{step}")
    parts = {part: ms * (1 + 0.05 * noise.random()) for part, ms in PARTS_MS.items()} | {"other": 1.1}
    place = {"run_id": run_id, "attempt": 1, "seq": seq, "step": step, "ts": ts}
    return StepTiming(**place, total_ms=sum(parts.values()), parts_ms=parts, floor_ms=floor_ms)


def _checkpoint(session: Session, settings: Settings, run_id: str, coders: list[str], now: float) -> str:
    checkpoint = settings.run_dir(run_id).checkpoint(200)
    _write_files(checkpoint, coders)
    evaluation = {coder: _numbers(0.1834 + 0.04 * number) for number, coder in enumerate(coders)}
    row = Checkpoint(
        run_id=run_id,
        attempt=1,
        step=200,
        path="checkpoints/step-00000200",
        manifest_sha256="0" * 64,
        size_bytes=sum(p.stat().st_size for p in checkpoint.root.rglob("*") if p.is_file()),
        evaluation=evaluation,
        created_at=now - 600,
    )
    session.add(row)
    session.flush()
    return row.id


def _numbers(fvu: float) -> dict[str, float]:
    """One coder's evaluation, with the model's predictions."""
    return {
        "eval_fvu": fvu,
        "eval_ev": 1 - fvu,
        "eval_l0": 31.62,
        "eval_dead_frac": 0.031,
        "eval_delta_ce": 0.0873,
        "eval_ce_recovered": 0.9871,
        "eval_ce_recovered_mean": 0.9412,
        "eval_kl": 0.1024,
        "eval_kl_score": 0.9846,
        "eval_kl_score_mean": 0.9377,
    }


def _write_files(checkpoint: CheckpointDir, coders: list[str]) -> None:
    draw = np.random.default_rng(0)
    tokens = [WORDS[i] for i in draw.integers(0, len(WORDS), 2048)]
    checkpoint.root.mkdir(parents=True)
    checkpoint.config.write_text(RunConfig().model_dump_json())
    checkpoint.tokens.write_text(json.dumps({"ctx_len": CTX_LEN, "tokens": tokens}))
    for name in coders:
        write_coder(checkpoint.coder(name).root, draw, len(tokens))
    write_manifest(checkpoint, step=200, tokens_seen=2_048_000, config_sha256="0" * 64)


def write_coder(folder: Path, draw: np.random.Generator, num_tokens: int) -> None:
    """Files of one coder: a configuration, small weights, inspection data with some dead latents."""
    folder.mkdir(parents=True)
    (folder / "cfg.json").write_text(json.dumps({"k": 32, "num_latents": NUM_LATENTS, "d_in": 64}))
    save_file({"W_dec": draw.normal(size=(NUM_LATENTS, 64)).astype(np.float32)}, folder / "sae.safetensors")
    count = np.minimum(np.exp(draw.normal(2.2, 1.4, NUM_LATENTS)), num_tokens * 0.6).astype(np.int64)
    count[draw.random(NUM_LATENTS) < 0.05] = 0
    strongest = np.sort(draw.gamma(2.0, 3.0, (NUM_LATENTS, 10)).astype(np.float32))[:, ::-1]
    positions = draw.integers(0, num_tokens, (NUM_LATENTS, 10)).astype(np.int32)
    positions[np.arange(10)[None, :] >= count[:, None]] = -1
    arrays = {
        "firing_count": count,
        "max_activation": np.where(count > 0, strongest[:, 0], 0).astype(np.float32),
        "top_values": np.ascontiguousarray(strongest),
        "top_positions": positions,
        "decoder_norm": draw.normal(1.0, 0.004, NUM_LATENTS).astype(np.float32),
    }
    save_file(arrays, folder / "inspect.safetensors", metadata={"num_tokens": str(num_tokens)})
