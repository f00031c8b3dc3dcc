"""The two sides of a comparison: this project's Trainer and EleutherAI's, on the same model, tokens and settings.

Both are timed by the same clock, read when the device has finished the last step of a window. Ours has everything on
that a run has, the event file with a point every step included; sparsify runs without Weights & Biases, and its
progress bar is replaced by the clock. Neither writes a checkpoint at the end: that takes longer than what is timed.
"""

import gc
import io
import os
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import nn

from benchmarks.timing import Windows, synchronize
from sparsify_core import MemmapDataset, SaeConfig, TrainConfig, Trainer
from sparsify_core.events import Metrics, read_events
from sparsify_core.rundir import RunDir
from sparsify_core.train.saving import Saver
from sparsify_core.train.stop import StopRequest


@dataclass(frozen=True)
class Task:
    """What is trained. `values` are those of TrainConfig, with those of its SaeConfig under `sae`."""

    lm: nn.Module
    tokens: Path
    ctx_len: int
    values: dict[str, Any]
    windows: Windows


@dataclass(frozen=True)
class Measured:
    """Milliseconds per step of each window, and the most memory that was taken at once (0 on a CPU)."""

    window_ms: list[float]
    peak_gib: float


Side = Callable[[Task], Measured]


def run_ours(task: Task) -> Measured:
    """One whole run of this project's Trainer."""

    def ends(folder: str) -> list[float]:
        return step_ends(train_ours(task, folder))

    return measure(ends, task.windows)


def train_ours(task: Task, folder: str) -> RunDir:
    """Train in `folder`, which all processes share, without a checkpoint at the end."""
    values = {**task.values, "sae": SaeConfig(**task.values["sae"]), "eval_tokens": 0}
    config = TrainConfig(**values, save_every=10**6, save_dir=folder)
    trainer = Trainer(config, MemmapDataset(task.tokens, task.ctx_len), task.lm)
    with (
        patch.object(Saver, "save", lambda *_args, **_options: None),
        patch.object(StopRequest, "listening", lambda _self: nullcontext()),  # SIGTERM ends the benchmark, not the run
    ):
        trainer.fit()
    return trainer.run_dir


def step_ends(run_dir: RunDir) -> list[float]:
    """When each step of a run's first attempt but the last was reported, in seconds: that is done when the next one is
    under way, and behind the last there is none."""
    events = read_events(run_dir.events(1), limit_bytes=1 << 30)
    return [event.ts for event, _ in events if isinstance(event, Metrics)][:-1]


def run_peer(task: Task) -> Measured:
    """One whole run of sparsify's Trainer."""
    if not torch.cuda.is_available():
        os.environ.setdefault("SPARSIFY_DISABLE_TRITON", "1")  # it takes Triton where it finds it
    import sparsify.trainer
    from sparsify import SaeConfig as PeerSaeConfig
    from sparsify import TrainConfig as PeerTrainConfig
    from sparsify.data import MemmapDataset as PeerDataset

    times: list[float] = []

    class Clock:
        def __init__(self, *_args: object, **_options: object) -> None: ...

        def update(self) -> None:
            if task.windows.is_border(len(times) + 1):
                synchronize()
            times.append(time.time())

        def close(self) -> None: ...

    def ends(folder: str) -> list[float]:
        values = {**task.values, "sae": PeerSaeConfig(**task.values["sae"]), "log_to_wandb": False}
        config = PeerTrainConfig(**values, save_every=10**6, save_dir=folder)
        with redirect_stdout(io.StringIO()):
            trainer = sparsify.trainer.Trainer(config, PeerDataset(task.tokens, task.ctx_len), task.lm)
            trainer.fit()
        return times[:-1]

    precision = torch.get_float32_matmul_precision()
    try:
        with (
            patch.object(sparsify.trainer, "tqdm", Clock),
            patch.object(sparsify.trainer.Trainer, "save", lambda _self: None),
        ):
            return measure(ends, task.windows)
    finally:
        torch.set_float32_matmul_precision(precision)  # it sets another one for the whole process


def measure(ends: Callable[[str], list[float]], windows: Windows) -> Measured:
    """Time what `ends` does in the folder that it is given; it returns when each step had ended."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    with tempfile.TemporaryDirectory() as folder:
        window_ms = windows.milliseconds(ends(folder))
    peak = torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else 0.0
    return Measured(window_ms, peak)
