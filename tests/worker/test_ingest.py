"""Event files into rows: everything, once, in order."""

import json
import os
import signal
import subprocess
import time

import pytest
from sqlmodel import col, select

from rows import claim_by, claimed_run, stored_points
from server.db.runs import release
from server.db.series import stored
from server.db.session import Database
from server.db.tables import Attempt, Checkpoint, Run, RunEvent, RunState, StepTiming
from server.settings import Settings
from services import python
from sparsify_core import events
from sparsify_core.rundir import RunDir
from worker.ingest import ingest, prune_checkpoints


def claim_again(database: Database, run_id: str, fence: int) -> int:
    with database.write() as session:
        assert release(session, run_id, fence, RunState.QUEUED, actor="test", outcome="lost")
        again = claim_by(session, run_id)
        assert again == fence + 1
        return again


def publish(run_dir: RunDir, step: int) -> events.CheckpointSaved:
    checkpoint = run_dir.checkpoint(step)
    checkpoint.root.mkdir(parents=True)
    checkpoint.manifest.write_text("{}")
    path = str(checkpoint.root.relative_to(run_dir.root))
    evaluation = {"layers.0": {"eval_fvu": 0.25, "eval_l0": float("nan")}}
    return events.CheckpointSaved(step=step, path=path, manifest_sha256="0" * 64, size_bytes=2, evaluation=evaluation)


def points(database: Database, run_id: str) -> list[tuple[int, int, str, float | None, str]]:
    with database.read() as session:
        found = sorted(stored_points(session, run_id), key=lambda one: (one[1].attempt, one[1].seq, one[0]))
    return [(point.attempt, point.step, key, *stored(point.value)) for key, point in found]


def test_every_event_becomes_what_the_pages_read(database: Database, settings: Settings) -> None:
    run_id, fence = claimed_run(database)
    run_dir = settings.run_dir(run_id)
    writer = events.EventWriter(run_dir.events(fence), attempt=fence)
    writer.write(events.AttemptStarted())
    writer.write(events.Phase(name="loading model", detail="tiny"))
    assert ingest(database, run_dir, run_id, fence) == 2
    with database.read() as session:
        run = session.get_one(Run, run_id)
        assert (run.state, run.phase) == (RunState.STARTING, "loading model: tiny")

    writer.write(events.TrainingPlanned(total_steps=10, tokens_per_step=64, coders=["layers.0"]))
    writer.write(events.Phase(name="training"))
    writer.write(events.Metrics(step=1, values={"fvu/layers.0": 0.5, "lr": float("inf")}))
    writer.write(events.Metrics(step=2, values={"fvu/layers.0": float("nan")}))
    writer.write(events.Warned(message="careful"))
    writer.write(events.StepTimed(step=2, total_ms=3.0, parts_ms={"lm": 2.0, "other": 1.0}, floor_ms={"lm": 0.5}))
    writer.write(events.StepTimed(step=3, total_ms=1.0, parts_ms={"other": 1.0}))
    writer.write(publish(run_dir, 2))
    assert ingest(database, run_dir, run_id, fence) == 8
    assert ingest(database, run_dir, run_id, fence) == 0

    assert points(database, run_id) == [
        (1, 1, "fvu/layers.0", 0.5, "finite"),
        (1, 1, "lr", None, "inf"),
        (1, 2, "fvu/layers.0", None, "nan"),
    ]
    with database.read() as session:
        run = session.get_one(Run, run_id)
        assert (run.state, run.step, run.total_steps, run.coders) == (RunState.RUNNING, 2, 10, ["layers.0"])
        assert run.latest == {"fvu/layers.0": "nan", "lr": "inf"}
        assert run.spark == {"steps": [1, 2], "values": [0.5, None]}
        (checkpoint,) = session.exec(select(Checkpoint).where(Checkpoint.run_id == run_id))
        assert checkpoint.evaluation == {"layers.0": {"eval_fvu": 0.25, "eval_l0": "nan"}}
        assert [e.detail for e in session.exec(select(RunEvent).where(RunEvent.kind == "warning"))] == ["careful"]
        timed = session.exec(select(StepTiming).order_by(col(StepTiming.step))).all()
        assert [(row.attempt, row.step, row.total_ms, row.parts_ms, row.floor_ms) for row in timed] == [
            (1, 2, 3.0, {"lm": 2.0, "other": 1.0}, {"lm": 0.5}),
            (1, 3, 1.0, {"other": 1.0}, None),
        ]
        without_floor = select(StepTiming.step).where(col(StepTiming.floor_ms).is_(None))
        assert list(session.exec(without_floor)) == [3]


def test_the_sparkline_stays_short_and_follows_a_resumed_attempt(database: Database, settings: Settings) -> None:
    run_id, first = claimed_run(database)
    run_dir = settings.run_dir(run_id)
    writer = events.EventWriter(run_dir.events(first), attempt=first)
    writer.write(events.TrainingPlanned(total_steps=200, tokens_per_step=64, coders=["a", "b"]))
    for step in range(1, 151):
        writer.write(events.Metrics(step=step, values={"fvu/a": step, "fvu/b": 0.5}))
    ingest(database, run_dir, run_id, first)
    with database.read() as session:
        assert session.get_one(Run, run_id).spark["steps"] == [*range(3, 150, 4), 150]
    second = claim_again(database, run_id, first)
    again = events.EventWriter(run_dir.events(second), attempt=second)
    again.write(events.AttemptStarted(resumed_step=100))
    again.write(events.Metrics(step=101, values={"fvu/a": -1.0}))
    ingest(database, run_dir, run_id, second)
    with database.read() as session:
        spark = session.get_one(Run, run_id).spark
    assert (spark["steps"][-2:], spark["values"][-2:]) == ([99, 101], [99.0, -1.0])


def test_a_torn_line_waits_and_foreign_lines_are_passed(database: Database, settings: Settings) -> None:
    run_id, fence = claimed_run(database)
    run_dir = settings.run_dir(run_id)
    path = run_dir.events(fence)
    path.parent.mkdir(parents=True)
    lines = [
        '{"type": "from_the_future", "v": 9, "seq": 1}',
        "not json",
        '{"type": "metrics", "seq": 3, "step": 1, "values": {"lr": 1}}',
    ]
    path.write_text("\n".join(lines) + "\n" + '{"type": "metrics", "seq": 4, "step": 2, "val')
    assert ingest(database, run_dir, run_id, fence) == 2
    assert ingest(database, run_dir, run_id, fence) == 0
    with path.open("a") as file:
        file.write('ues": {"lr": 2}}\n')
    assert ingest(database, run_dir, run_id, fence) == 1
    assert [(step, value) for _, step, _, value, _ in points(database, run_id)] == [(1, 1.0), (2, 2.0)]


def test_a_resumed_attempt_replaces_what_lies_behind_its_checkpoint(database: Database, settings: Settings) -> None:
    run_id, first = claimed_run(database)
    run_dir = settings.run_dir(run_id)
    old = events.EventWriter(run_dir.events(first), attempt=first)
    for step in range(1, 6):
        old.write(events.Metrics(step=step, values={"lr": step}))
        old.write(events.StepTimed(step=step, total_ms=step, parts_ms={"other": step}))
    ingest(database, run_dir, run_id, first)
    old.write(events.Metrics(step=6, values={"lr": 6}))  # not read yet when the new attempt starts
    old.write(events.StepTimed(step=6, total_ms=6, parts_ms={"other": 6}))

    second = claim_again(database, run_id, first)
    new = events.EventWriter(run_dir.events(second), attempt=second)
    new.write(events.AttemptStarted(resumed_step=3))
    new.write(events.Metrics(step=4, values={"lr": 40}))
    new.write(events.StepTimed(step=4, total_ms=40, parts_ms={"other": 40}))
    ingest(database, run_dir, run_id, second)
    ingest(database, run_dir, run_id, first)

    assert [(attempt, step) for attempt, step, *_ in points(database, run_id)] == [(1, 1), (1, 2), (1, 3), (2, 4)]
    with database.read() as session:
        timed = session.exec(select(StepTiming).order_by(col(StepTiming.step)))
        assert [(row.attempt, row.total_ms) for row in timed] == [(1, 1), (1, 2), (1, 3), (2, 40)]
        assert session.get_one(Run, run_id).step == 4
        assert session.get_one(Attempt, (run_id, second)).resumed_step == 3


def test_a_step_saved_again_keeps_one_row_and_deleted_checkpoints_lose_theirs(
    database: Database, settings: Settings
) -> None:
    run_id, fence = claimed_run(database)
    run_dir = settings.run_dir(run_id)
    writer = events.EventWriter(run_dir.events(fence), attempt=fence)
    saved = publish(run_dir, 2)
    writer.write(saved)
    writer.write(saved.model_copy(update={"size_bytes": 3}))
    writer.write(publish(run_dir, 4))
    ingest(database, run_dir, run_id, fence)
    with database.read() as session:
        rows = session.exec(select(Checkpoint).order_by(col(Checkpoint.step))).all()
        assert [(row.step, row.size_bytes) for row in rows] == [(2, 3), (4, 2)]
    run_dir.checkpoint(2).manifest.unlink()
    assert prune_checkpoints(database, run_dir, run_id) == 1
    with database.read() as session:
        assert [row.step for row in session.exec(select(Checkpoint))] == [4]


def test_reading_an_attempt_anew_changes_nothing(database: Database, settings: Settings) -> None:
    run_id, first = claimed_run(database)
    run_dir = settings.run_dir(run_id)
    saved = publish(run_dir, 4)
    old = events.EventWriter(run_dir.events(first), attempt=first)
    old.write(events.Warned(message="careful\0"))
    old.write(saved)
    ingest(database, run_dir, run_id, first)
    second = claim_again(database, run_id, first)
    new = events.EventWriter(run_dir.events(second), attempt=second)
    new.write(events.AttemptStarted(resumed_step=2))
    new.write(saved.model_copy(update={"size_bytes": 3}))
    ingest(database, run_dir, run_id, second)

    def seen() -> tuple[list[tuple[str, str]], list[tuple[int, int]]]:
        with database.read() as session:
            told = session.exec(select(RunEvent).where(RunEvent.actor == "trainer").order_by(col(RunEvent.id)))
            rows = session.exec(select(Checkpoint))
            return [(one.kind, one.detail) for one in told], [(row.attempt, row.size_bytes) for row in rows]

    before = seen()
    assert before == (
        [("warning", "careful"), ("resumed", "from the checkpoint of step 2")],
        [(second, 3)],
    )
    for attempt in (second, first):
        with database.write() as session:
            session.get_one(Attempt, (run_id, attempt)).event_offset = 0
        ingest(database, run_dir, run_id, attempt)
    assert seen() == before


INGESTER = """
import sys
from server.db.session import Database
from server.settings import get_settings
from worker.ingest import ingest
settings, run_id = get_settings(), sys.argv[1]
database = Database(settings)
print("ready", flush=True)
while True:
    ingest(database, settings.run_dir(run_id), run_id, 1)
"""


@pytest.mark.integration
def test_killed_and_competing_ingesters_leave_neither_gap_nor_duplicate(database: Database, settings: Settings) -> None:
    run_id, fence = claimed_run(database)
    run_dir = settings.run_dir(run_id)
    writer = events.EventWriter(run_dir.events(fence), attempt=fence)
    environment = os.environ | {
        "SPARSEBOARD_DATA_DIR": str(settings.data_dir),
        "DATABASE_URL": settings.database_url,
    }

    def start() -> subprocess.Popen[str]:
        command = python("-c", INGESTER, run_id)
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)

    ingesters = [start(), start()]
    written = 0
    for kills in range(6):
        assert ingesters[0].stdout is not None
        assert ingesters[0].stdout.readline() == "ready\n"
        until = time.monotonic() + 0.1 + 0.05 * kills
        while time.monotonic() < until:
            written += 1
            writer.write(events.Metrics(step=written, values={"lr": written, "tokens": 2 * written}))
        victim = ingesters.pop(0)
        victim.send_signal(signal.SIGKILL)
        victim.wait()
        ingesters.append(start())
    for process in ingesters:
        process.kill()
        process.wait()
    ingest(database, run_dir, run_id, fence)

    lines = run_dir.events(fence).read_text().splitlines()
    assert len(lines) == written
    assert json.loads(lines[-1])["step"] == written
    got = points(database, run_id)
    assert [(step, value) for _, step, key, value, _ in got if key == "lr"] == [
        (n, float(n)) for n in range(1, written + 1)
    ]
    assert len(got) == 2 * written
