"""Rows and files as the worker and the trainer leave them, for tests of what shows them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from safetensors.numpy import save_file
from sqlmodel import Session, select

from server.db.runs import Placement, claim, record, set_supervisor
from server.db.series import Point, number, stored
from server.db.series.packing import unpack_points
from server.db.session import Database
from server.db.tables import (
    Attempt,
    AttemptNode,
    Checkpoint,
    MetricChunk,
    MetricPoint,
    ProcessIdentity,
    Run,
    RunState,
    StepTiming,
    Worker,
)
from server.queue import PROTOCOL
from server.scheduling import GB
from server.settings import Settings
from sparsify_core.config import RunConfig
from sparsify_core.manifest import file_sha256, write_manifest
from sparsify_core.rundir import CheckpointDir

CODER = "layers.5"
SOMEWHERE = ProcessIdentity(pid=1, started=0.0, boot_id="boot", pid_namespace="of another container")
"""A process that no worker can see."""


def add_run(session: Session, **values: Any) -> Run:
    """A queued run."""
    config = RunConfig(model="owner/model", dataset="owner/data", hookpoints=[CODER])
    run = Run(**{"name": "run", "config": config.model_dump(mode="json")} | values)
    session.add(run)
    session.flush()
    record(session, run.id, actor="user", kind=RunState.QUEUED)
    return run


def add_attempt(session: Session, run: Run, *, attempt: int = 1, event_seq: int = 0) -> Attempt:
    """An attempt that holds the run."""
    run.fence = run.attempt = attempt
    row = Attempt(run_id=run.id, attempt=attempt, event_seq=event_seq)
    session.add_all([run, row, AttemptNode(run_id=run.id, attempt=attempt, worker_id="w", host="host")])
    session.flush()
    return row


def add_point(
    session: Session, run: Run, seq: int, value: float, *, key: str = "fvu/layers.5", attempt: int = 1
) -> None:
    column, kind = stored(value)
    place = {"run_id": run.id, "attempt": attempt, "seq": seq, "key": key, "step": seq, "ts": float(seq)}
    session.add(MetricPoint(**place, value=column, kind=kind))


def stored_points(session: Session, run_id: str) -> list[tuple[str, Point]]:
    """Everything that the database has of a run's series, sealed or not."""
    rows = session.exec(select(MetricPoint).where(MetricPoint.run_id == run_id))
    hot = [(row.key, Point(row.step, row.attempt, row.seq, row.ts, number(row.value, row.kind))) for row in rows]
    chunks = session.exec(select(MetricChunk).where(MetricChunk.run_id == run_id, MetricChunk.level == 0))
    return hot + [(one.key, point) for one in chunks for point in unpack_points(one.data, one.attempt)]


def add_timing(
    session: Session, run: Run, step: int, parts_ms: dict[str, float], floor_ms: dict[str, float] | None = None
) -> StepTiming:
    """A measured step."""
    place = {"run_id": run.id, "attempt": 1, "seq": step, "step": step, "ts": float(step)}
    row = StepTiming(**place, total_ms=sum(parts_ms.values()), parts_ms=parts_ms, floor_ms=floor_ms)
    session.add(row)
    return row


def add_checkpoint(session: Session, settings: Settings, run: Run, step: int = 20) -> Checkpoint:
    """A checkpoint in upstream's layout, with a manifest, an evaluation and a config that names local paths."""
    directory = settings.run_dir(run.id).checkpoint(step)
    coder = directory.coder(CODER)
    coder.root.mkdir(parents=True)
    coder.config.write_text('{"k": 2, "d_in": 4}')
    weights = np.arange(32, dtype=np.float32).reshape(8, 4)
    save_file({"W_dec": weights}, coder.weights)
    config = RunConfig(model="/secret/place/model", dataset="/secret/place/text.jsonl", hookpoints=[CODER])
    directory.config.write_text(config.model_dump_json())
    directory.evaluation.write_text("{}")
    write_manifest(directory, step=step, tokens_seen=100, config_sha256="0" * 64)
    return _row(session, run, directory, step)


def _row(session: Session, run: Run, directory: CheckpointDir, step: int) -> Checkpoint:
    row = Checkpoint(
        run_id=run.id,
        attempt=1,
        step=step,
        path=f"checkpoints/{directory.root.name}",
        manifest_sha256=file_sha256(directory.manifest),
        size_bytes=1000,
        evaluation={CODER: {"eval_fvu": 0.25, "eval_l0": 31.5}},
    )
    session.add(row)
    session.flush()
    return row


def claimed_run(database: Database) -> tuple[str, int]:
    """A run that was placed on a worker, and has no supervisor yet: its id and the fence."""
    with database.write() as session:
        run = Run(name="run", config={})
        session.add(run)
        session.flush()
        fence = claim_by(session, run.id)
        assert fence is not None
        return run.id, fence


def held_run(database: Database, supervisor: ProcessIdentity | None = None) -> tuple[str, int]:
    """A run with a supervisor, by default one that nobody can see: its id and the fence."""
    run_id, fence = claimed_run(database)
    with database.write() as session:
        assert set_supervisor(session, run_id, fence, supervisor or SOMEWHERE)
    return run_id, fence


def claim_by(
    session: Session,
    run_id: str,
    worker_id: str = "w",
    *,
    host: str = "host",
    gpus: Sequence[int] = (),
    slot: int = 0,
    boot_id: str = "",
) -> int | None:
    """One worker's claim of a queued run."""
    here = Placement(worker_id, host, boot_id, gpus, slot)
    return claim(session, run_id, placement=[here], actor=f"worker {host}")


def add_worker(
    session: Session, name: str = "here", *, num_gpus: int = 0, memory_gb: int = 80, **values: Any
) -> Worker:
    """A connected worker of this boot."""
    devices = [
        {"index": index, "name": "GPU", "memory_bytes": memory_gb * GB, "uuid": f"{name}-{index}"}
        for index in range(num_gpus)
    ]
    row = Worker(**{"name": name, "host": name, "pid": 1, "protocol": PROTOCOL, "devices": devices} | values)
    session.add(row)
    session.flush()
    return row
