"""Every path inside a run directory. Nothing else in the project joins these names.

```
<run>/config.json                      the RunConfig that the run was launched with
<run>/events/0001.jsonl                one event file per attempt (sparsify_core.events)
<run>/events/0001.pulse                touched at every step: tells a slow run from one that hangs
<run>/logs/0001.log                    stdout and stderr of the attempt's torchrun and its ranks
<run>/logs/0001.error.json             what torchrun says about the rank that failed first
<run>/logs/0001.supervisor.log         what the process that watches torchrun says
<run>/logs/0001.ranks/                 torchrun's own files, one folder per rank
<run>/logs/0001.node-1.log              ... and the same four of the further nodes, in a run on several
<run>/tensorboard/                     TensorBoard's event files, with log_to_tensorboard
<run>/wandb/                           W&B's own files, with log_to_wandb; W&B names and fills it
<run>/checkpoints/step-00000200/       one published checkpoint: upstream's layout plus manifest.json
    manifest.json                      sizes and sha256 of every other file; written last
    config.json                        the RunConfig
    eval.json                          held-out evaluation (sparsify_core.evaluation)
    <hookpoint>/cfg.json, sae.safetensors, inspect.safetensors
    training.json, training.safetensors  optimizer state and counters, to resume from (sparsify_core.train.state)
    training-rank1.safetensors         ... of the coders that another process trained (distribute_modules)
    tokens.json                        token strings of the text that inspect.safetensors points into
<run>/origin/step-00000200/            the checkpoint of another run that this one was forked from
```
"""

import re
from dataclasses import dataclass
from pathlib import Path

_CHECKPOINT_NAME = re.compile(r"step-(\d{8})")


@dataclass(frozen=True)
class RunDir:
    """The directory of one run."""

    root: Path

    @property
    def config(self) -> Path:
        return self.root / "config.json"

    @property
    def checkpoints(self) -> Path:
        return self.root / "checkpoints"

    @property
    def tensorboard(self) -> Path:
        return self.root / "tensorboard"

    def events(self, attempt: int) -> Path:
        return self.root / "events" / f"{attempt:04d}.jsonl"

    def pulse(self, attempt: int) -> Path:
        return self.root / "events" / f"{attempt:04d}.pulse"

    def log(self, attempt: int, node: int = 0) -> Path:
        return self._logs(attempt, node, ".log")

    def error_file(self, attempt: int, node: int = 0) -> Path:
        return self._logs(attempt, node, ".error.json")

    def supervisor_log(self, attempt: int, node: int = 0) -> Path:
        return self._logs(attempt, node, ".supervisor.log")

    def rank_files(self, attempt: int, node: int = 0) -> Path:
        return self._logs(attempt, node, ".ranks")

    def _logs(self, attempt: int, node: int, suffix: str) -> Path:
        return self.root / "logs" / (f"{attempt:04d}.node-{node}{suffix}" if node else f"{attempt:04d}{suffix}")

    def checkpoint(self, step: int) -> "CheckpointDir":
        return CheckpointDir(self.checkpoints / f"step-{step:08d}")

    def staging(self, step: int) -> "CheckpointDir":
        """Where a checkpoint is written before it is published by a rename."""
        return CheckpointDir(self.checkpoints / f".tmp-step-{step:08d}")

    def unpublished(self) -> list["CheckpointDir"]:
        """Checkpoints that are being written, or that a killed attempt has left unfinished."""
        return [CheckpointDir(path) for path in sorted(self.checkpoints.glob(".tmp-step-*"))]

    def origin(self, step: int) -> "CheckpointDir":
        """Where the checkpoint that the run was forked from is kept, whatever becomes of its own run."""
        return CheckpointDir(self.root / "origin" / f"step-{step:08d}")

    def published(self) -> list["CheckpointDir"]:
        """All published checkpoints, oldest step first."""
        if not self.checkpoints.is_dir():
            return []
        names = sorted(p for p in self.checkpoints.iterdir() if _CHECKPOINT_NAME.fullmatch(p.name))
        return [CheckpointDir(p) for p in names if CheckpointDir(p).manifest.is_file()]


@dataclass(frozen=True)
class CheckpointDir:
    """The directory of one checkpoint."""

    root: Path

    @property
    def step(self) -> int:
        """Optimizer step after which the checkpoint was taken."""
        match = re.search(r"step-(\d{8})$", self.root.name)
        if match is None:
            raise ValueError(f"not a checkpoint directory name: {self.root.name}")
        return int(match.group(1))

    @property
    def manifest(self) -> Path:
        return self.root / "manifest.json"

    @property
    def config(self) -> Path:
        return self.root / "config.json"

    @property
    def evaluation(self) -> Path:
        return self.root / "eval.json"

    @property
    def tokens(self) -> Path:
        return self.root / "tokens.json"

    @property
    def training_state(self) -> Path:
        return self.root / "training.json"

    def training_tensors(self, rank: int) -> Path:
        """Optimizer state and counters of the coders that process `rank` wrote."""
        return self.root / ("training.safetensors" if rank == 0 else f"training-rank{rank}.safetensors")

    def coder(self, name: str) -> "CoderDir":
        """Directory of one sparse coder; `name` is its hookpoint, or `hookpoint/seedN`."""
        return CoderDir(self.root / name)


@dataclass(frozen=True)
class CoderDir:
    """The files of one sparse coder inside a checkpoint, named as upstream names them."""

    root: Path

    @property
    def config(self) -> Path:
        return self.root / "cfg.json"

    @property
    def weights(self) -> Path:
        return self.root / "sae.safetensors"

    @property
    def inspection(self) -> Path:
        return self.root / "inspect.safetensors"
