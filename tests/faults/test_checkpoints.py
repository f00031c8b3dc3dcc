"""Checkpoints are torn, damaged or interrupted: there is always one to go on from."""

import json
import os
import random
import subprocess
from pathlib import Path

import pytest

from deployment import SAVE_EVERY, Deployment, Plan
from promises import same_weights
from server.db.tables import RunState
from services import python
from sparsify_core.rundir import RunDir

pytestmark = pytest.mark.faults

HELD: Plan = {26: ["hold"]}
SCRIPT = Path(__file__).parents[1] / "support" / "killed_training.py"


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 100)


def flip_bit(path: Path) -> None:
    """In the last tensor: the file still loads."""
    with path.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_END)
        file.write(bytes([byte ^ 1]))


def remove_manifest(path: Path) -> None:
    path.parents[1].joinpath("manifest.json").unlink()


@pytest.mark.long
@pytest.mark.parametrize("damage", [truncate, flip_bit, remove_manifest])
def test_a_damaged_checkpoint_is_passed_over_and_said_so(deployment: Deployment, damage) -> None:  # type: ignore[no-untyped-def]
    run_id = deployment.submit(plans={1: HELD})
    deployment.wait_held(run_id)
    older, newest = deployment.run_dir(run_id).published()
    deployment.torchrun(run_id).kill()
    deployment.wait_state(run_id, RunState.RETRY_WAIT)
    deployment.damaged.add(newest.root)
    damage(newest.coder("layers.0").weights)
    deployment.go(run_id)
    run = deployment.wait_end(run_id)
    assert (run.state, run.attempt) == (RunState.COMPLETED, 2)
    assert deployment.attempts(run_id)[1].resumed_step == older.step == SAVE_EVERY
    if damage is not remove_manifest:  # without one it is no checkpoint, as when a kill met its deletion
        warnings = [event["detail"] for event in history(deployment, run_id) if event["kind"] == "warning"]
        assert any(newest.root.name in warning for warning in warnings), warnings


def history(deployment: Deployment, run_id: str) -> list[dict[str, str]]:
    items: list[dict[str, str]] = deployment.client.get(f"/api/v1/runs/{run_id}/events").json()["items"]
    return items


@pytest.mark.parametrize("kills", [3, pytest.param(50, marks=pytest.mark.long)])
def test_training_that_is_killed_at_any_moment_loses_no_checkpoint(
    kills: int, tmp_path: Path, undisturbed: RunDir
) -> None:
    """Saving at every step, killed at random moments and resumed each time, it becomes what was left alone."""
    config = json.loads(undisturbed.config.read_text()) | {"resume": True, "save_every": 1}
    (tmp_path / "config.json").write_text(json.dumps(config))
    run_dir, seed = RunDir(tmp_path / "run"), random.randrange(10**6)
    words = [str(tmp_path / "config.json"), str(run_dir.root), str(kills), str(seed)]
    done = subprocess.run(python(str(SCRIPT), *words), capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, f"seed {seed}: {done.stdout}{done.stderr[-3000:]}"
    same_weights(run_dir, undisturbed)
