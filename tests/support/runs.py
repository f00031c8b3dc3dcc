"""What tests of whole runs share."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from sparsify_core.events import read_events
from sparsify_core.rundir import RunDir


class Trained:
    """What a finished command left behind."""

    def __init__(self, exit_code: int, run_dir: RunDir) -> None:
        self.exit_code = exit_code
        self.run_dir = run_dir

    def events(self, attempt: int = 1) -> list[Any]:
        return [event for event, _ in read_events(self.run_dir.events(attempt))]

    def series(self, key: str) -> list[float]:
        return [e.values[key] for e in self.events() if e.type == "metrics" and key in e.values]

    def weights(self, step: int, coder: str = "layers.0") -> dict[str, torch.Tensor]:
        from safetensors.torch import load_file

        return load_file(self.run_dir.checkpoint(step).coder(coder).weights)

    def evaluation(self, step: int) -> dict[str, Any]:
        return json.loads(self.run_dir.checkpoint(step).evaluation.read_text())


TrainFunction = Callable[..., Trained]


def flags(values: dict[str, Any]) -> list[str]:
    words: list[str] = []
    for name, value in values.items():
        words.append(f"--{name}")
        words.extend(str(v) for v in value) if isinstance(value, list | tuple) else words.append(str(value))
    return words


DEVICE = os.environ.get("SPARSEBOARD_TEST_DEVICE", "cpu")
"""Where runs of the tests train: `cuda` tries the same on a GPU."""

BASE = {
    "ctx_len": 16,
    "batch_size": 4,
    "max_tokens": 640,
    "eval_tokens": 128,
    "layers": [0],
    "k": 4,
    "expansion_factor": 4,
    "optimizer": "adam",
    "lr": 0.01,
    "lr_warmup_steps": 2,
    "device": DEVICE,
    "dtype": "float32",
    "compile_model": "off",
    "coder_dtype": "float32",
}
"""Ten optimizer steps of 64 tokens."""


def command(model: Path, text: Path, root: Path, *, processes: int = 1, **changes: object) -> list[str]:
    """The command line of a run on `BASE`, under torchrun where there are several processes."""
    words = ["sparsify_core", str(model), str(text), *flags({**BASE, **changes}), "--run_dir", str(root)]
    if processes == 1:
        return [sys.executable, "-m", *words]
    launcher = ["-m", "torch.distributed.run", f"--nproc_per_node={processes}", f"--master_port={free_port()}"]
    return [sys.executable, *launcher, "-m", *words]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def torchrun(folder: Path, attempts: list[dict[str, Any]], *, fails: bool = False) -> None:
    """Carry out `attempts` (see attempts.py, which gets a port for each) in two processes, one after the other."""
    spec = folder / "attempts.json"
    spec.write_text(json.dumps([{**attempt, "port": free_port()} for attempt in attempts]))
    launcher = ["-m", "torch.distributed.run", "--nproc_per_node=2", f"--master_port={free_port()}"]
    words = [sys.executable, *launcher, str(Path(__file__).parent / "attempts.py"), str(spec)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=180)
    assert bool(done.returncode) is fails, done.stdout + done.stderr
