"""Judges a deployment after a fault, by what it has left behind: the promises N1 to N6 of docs/reliability.md.

Every accepted run must be over (or paused by a person) when it is judged.
"""

import time
from collections.abc import Iterator
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import httpx2 as httpx
import numpy as np
import psutil
from safetensors.numpy import load_file
from sqlmodel import Session, SQLModel, col, select

from deployment import CANARY, Accepted, Deployment
from rows import stored_points
from server.db.series import stored
from server.db.tables import TERMINAL, Checkpoint, DeviceLease, Run, RunEvent, RunState
from services import wait_until
from sparsify_core import events
from sparsify_core.errors import CheckpointError
from sparsify_core.manifest import file_sha256, verify_checkpoint
from sparsify_core.rundir import CheckpointDir, RunDir


def check(deployment: Deployment, accepted: list[Accepted], *, reference: RunDir | None) -> None:
    """Raise AssertionError, with the number of the promise, when one of them was broken.

    Args:
        reference: of an undisturbed standard run, whose weights the others must reach; None leaves that out.
    """
    for run in accepted:
        one_end(deployment, run.run_id)
        one_curve(deployment, run.run_id)
        intact_checkpoint(deployment, run.run_id)
        if reference and run.is_standard and deployment.run(run.run_id).state == RunState.COMPLETED:
            same_weights(deployment.run_dir(run.run_id), reference)
        whole_logs(deployment, run.run_id)
        nothing_left(deployment, run.run_id)
    no_secret(deployment, [run.run_id for run in accepted][-1:])


def one_end(deployment: Deployment, run_id: str) -> None:
    """N1: an accepted run ends in exactly one terminal state, or is paused."""
    with deployment.database.read() as session:
        one_way(session, run_id)
    run = deployment.run(run_id)
    assert run.state in (*TERMINAL, RunState.PAUSED), f"N1: {run_id} is {run.state}"
    assert all(attempt.ended_at and attempt.outcome for attempt in deployment.attempts(run_id)), "N1: an open attempt"


def one_way(session: Session, run_id: str) -> None:
    """N1: the history of a run is one unbroken way to where it is, and nothing follows a terminal state."""
    run = session.get_one(Run, run_id)
    statement = select(RunEvent).where(RunEvent.run_id == run_id).order_by(col(RunEvent.id))
    moves = [event for event in session.exec(statement) if event.kind in set(RunState)]
    assert moves[0].kind == RunState.QUEUED, f"N1: {run_id} begins with {moves[0]}"
    for before, after in pairwise(moves):
        assert after.from_state == before.kind, f"N1: {run_id} jumps from {before} to {after}"
        assert before.kind not in TERMINAL, f"N1: {run_id} goes on from {before}"
    assert moves[-1].kind == run.state, f"N1: {run_id} is {run.state}, its history ends with {moves[-1]}"


class Point(NamedTuple):
    key: str
    step: int
    value: float | None
    kind: str


def one_curve(deployment: Deployment, run_id: str) -> None:
    """N2: every series is what the trainer's own files say, step by step: no gap, nothing twice."""
    with deployment.database.read() as session:
        found = stored_points(session, run_id)
    shown = sorted(Point(key, point.step, *stored(point.value)) for key, point in found)
    assert shown == sorted(_written(deployment.run_dir(run_id))), f"N2: {run_id}: the charts are not what was written"
    steps = [point.step for point in shown if point.key == "lr"]
    assert steps == list(range(1, len(steps) + 1)), f"N2: {run_id}: gaps or doubles in {steps}"


def _written(run_dir: RunDir) -> Iterator[Point]:
    """The points that count: of each attempt those up to the step from which a later one went on."""
    files = {int(path.stem): [event for event, _ in _all_events(path)] for path in run_dir.root.glob("events/*.jsonl")}
    resumed = {
        attempt: found.resumed_step
        for attempt, content in files.items()
        for found in content
        if isinstance(found, events.AttemptStarted)
    }
    for attempt, content in files.items():
        last = min((step for later, step in resumed.items() if later > attempt), default=None)
        for event in content:
            if isinstance(event, events.Metrics) and (last is None or event.step <= last):
                for key, value in event.values.items():
                    yield Point(key, event.step, *stored(value))


def _all_events(path: Path) -> Iterator[tuple[Any, int]]:
    offset = 0
    while block := list(events.read_events(path, offset)):
        yield from block
        offset = block[-1][1]


def intact_checkpoint(deployment: Deployment, run_id: str) -> None:
    """N3: once a checkpoint was saved there is always one that verifies and loads, and the lists name no other."""
    run_dir = deployment.run_dir(run_id)
    with deployment.database.read() as session:
        rows = session.exec(select(Checkpoint).where(Checkpoint.run_id == run_id)).all()
    for row in rows:
        checkpoint = CheckpointDir(run_dir.root / row.path)
        if checkpoint.root not in deployment.damaged:
            verify_checkpoint(checkpoint)
            assert file_sha256(checkpoint.manifest) == row.manifest_sha256, f"N3: {run_id}: {row.path} was replaced"
    saved = any(
        isinstance(event, events.CheckpointSaved)
        for path in run_dir.root.glob("events/*.jsonl")
        for event, _ in _all_events(path)
    )
    if saved:
        assert any(_loads(checkpoint) for checkpoint in run_dir.published()), f"N3: {run_id} has no intact checkpoint"


def _loads(checkpoint: CheckpointDir) -> bool:
    try:
        verify_checkpoint(checkpoint)
    except CheckpointError:
        return False
    return all(load_file(path) for path in checkpoint.root.rglob("sae.safetensors"))


def same_weights(run_dir: RunDir, reference: RunDir) -> None:
    """N3: what was interrupted and resumed has become, bit for bit, what was left alone."""
    ours, theirs = run_dir.published()[-1], reference.published()[-1]
    assert ours.step == theirs.step, f"N3: {run_dir.root.name} ended at step {ours.step}, not {theirs.step}"
    for path in theirs.root.rglob("sae.safetensors"):
        expected, got = load_file(path), load_file(ours.root / path.relative_to(theirs.root))
        assert expected.keys() == got.keys()
        for name, tensor in expected.items():
            np.testing.assert_array_equal(got[name], tensor, err_msg=f"N3: {run_dir.root.name}: {name}")


def whole_logs(deployment: Deployment, run_id: str) -> None:
    """N4: the log of every attempt is served from its first byte to its last, each once."""
    for attempt in deployment.attempts(run_id):
        path = deployment.run_dir(run_id).log(attempt.attempt)
        size = path.stat().st_size if path.exists() else 0
        offset = 0
        while offset < size:
            query = {"attempt": attempt.attempt, "offset": offset, "limit": 1_000_000}
            chunk = deployment.client.get(f"/api/v1/runs/{run_id}/log", params=query).json()
            assert chunk["offset"] == offset, f"N4: {run_id}: asked for byte {offset}, got {chunk['offset']}"
            assert chunk["next_offset"] > offset, f"N4: {run_id}: the log ends at byte {offset} of {size}"
            offset = chunk["next_offset"]
        assert offset == size, f"N4: {run_id}: {offset} bytes served of {size}"


def nothing_left(deployment: Deployment, run_id: str) -> None:
    """N5: ten seconds after its end no process works for a run, and none of its devices is taken."""

    def leases() -> int:
        with deployment.database.read() as session:
            return len(session.exec(select(DeviceLease).where(DeviceLease.run_id == run_id)).all())

    wait_until(lambda: not deployment.family(run_id) and not leases(), timeout_s=10, what=f"N5: {run_id} to be gone")


def no_secret(deployment: Deployment, run_ids: list[str]) -> None:
    """N6: the deployment's token is in no file, no row, no page, no stream and no command line."""
    for path in deployment.settings.data_dir.rglob("*"):
        if path.is_file():
            assert CANARY.encode() not in path.read_bytes(), f"N6: the token is in {path}"
    with deployment.database.read() as session:
        for table in SQLModel.metadata.sorted_tables:
            for row in session.execute(table.select()):
                assert CANARY not in repr(row), f"N6: the token is in {table.name}"
    with closing(deployment.browser()) as browser:
        for page in ("/", "/runs/new", "/workers", "/settings", *(f"/runs/{run_id}" for run_id in run_ids)):
            assert CANARY not in browser.get(page).text, f"N6: the token is in {page}"
        for run_id in run_ids:
            assert CANARY not in _stream(browser, run_id), f"N6: the token is in the stream of {run_id}"
    no_secret_in_command_lines()


def no_secret_in_command_lines() -> None:
    """N6, while things run."""
    for process in psutil.process_iter(["cmdline"]):
        assert not any(CANARY in word for word in process.info["cmdline"] or ()), f"N6: the token is in {process}"


def _stream(browser: httpx.Client, run_id: str) -> str:
    """What a tab gets that has seen nothing yet."""
    received, until = "", time.monotonic() + 1.0
    with browser.stream("GET", f"/events?topics=run:{run_id},runs&after=0.0.1.0", timeout=2.0) as answer:
        assert answer.status_code == 200
        try:
            for text in answer.iter_text():
                received += text
                if time.monotonic() > until:
                    break
        except httpx.ReadTimeout:
            pass
    assert received
    return received
