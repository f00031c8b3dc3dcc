"""Real processes: torchrun, signals."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch

from runs import Trained, command
from sparsify_core.manifest import verify_checkpoint
from sparsify_core.rundir import RunDir

pytestmark = pytest.mark.integration


def test_two_processes_equal_one_with_twice_the_batch(tiny_model: Path, tiny_text: Path, tmp_path: Path) -> None:
    changes = {"exclude_first": 1, "lr": 1e-3, "dead_feature_threshold": 100}
    two = command(tiny_model, tiny_text, tmp_path / "two", processes=2, batch_size=2, **changes)
    one = command(tiny_model, tiny_text, tmp_path / "one", batch_size=4, **changes)
    for words in (two, one):
        done = subprocess.run(words, capture_output=True, text=True, timeout=180)
        assert done.returncode == 0, done.stdout + done.stderr
    runs = [Trained(0, RunDir(tmp_path / name)) for name in ("one", "two")]
    assert len(runs[1].events()) == len(runs[0].events())
    assert runs[1].events()[0].world_size == 2
    for key in ("fvu/layers.0", "dead_frac/layers.0", "l0/layers.0"):
        assert runs[1].series(key) == pytest.approx(runs[0].series(key), rel=1e-3)
    for name, tensor in runs[0].weights(10).items():
        torch.testing.assert_close(runs[1].weights(10)[name], tensor, atol=2e-3, rtol=1e-2)


@pytest.mark.parametrize("processes", [1, 2])
def test_sigterm_saves_and_ends_well(tiny_model: Path, tiny_text: Path, tmp_path: Path, processes: int) -> None:
    words = command(tiny_model, tiny_text, tmp_path, processes=processes, max_tokens="none", batch_size=1, ctx_len=4)
    run = Trained(0, RunDir(tmp_path))
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        try:
            deadline = time.monotonic() + 120
            while not run.series("lr"):
                assert process.poll() is None, process.stdout.read()
                assert time.monotonic() < deadline
                time.sleep(0.1)
            asked = time.monotonic()
            os.kill(process.pid, signal.SIGTERM)
            process.communicate(timeout=60)
            assert time.monotonic() - asked < 30
        finally:
            process.kill()
    last = run.events()[-1]
    assert (last.type, last.outcome) == ("attempt_finished", "stopped")
    (checkpoint,) = run.run_dir.published()
    assert verify_checkpoint(checkpoint)["step"] == last.step
    if processes == 1:
        assert process.returncode == 0


def test_ranks_die_with_their_parent(tiny_model: Path, tiny_text: Path, tmp_path: Path) -> None:
    words = command(tiny_model, tiny_text, tmp_path, processes=2, max_tokens="none", batch_size=1, ctx_len=4)
    run = Trained(0, RunDir(tmp_path))
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 120
        while not run.series("lr"):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.1)
        process.kill()
    time.sleep(1)
    before = len(run.events())
    time.sleep(1)
    assert len(run.events()) == before
