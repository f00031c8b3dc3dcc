"""Does to training from the inside what no signal can: an outlier, a full GPU, a flood of output.

Python imports this file in every process whose PYTHONPATH names its folder. It acts where the working directory, the
folder of a run, holds a plan `sabotage.json`: what to do in which attempt before which step,
`{"1": {"25": ["hold"]}}`. The step `start` stands for torchrun's own start; `pace_s` is a pause before every step.
"""

import importlib.util
import json
import os
import signal
import sys
import time
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

HERE = Path.cwd()
_TRAINER = "sparsify_core.train.trainer"


def _hold(trainer: Any) -> None:
    """Wait for the file `go`, or until the run is asked to stop."""
    (HERE / f"held-{os.environ['SPARSEBOARD_FENCE']}").touch()
    while not (HERE / "go").exists() and not trainer.stop:
        time.sleep(0.02)


def _poison(trainer: Any) -> None:
    for parameter in trainer._units[0].coder.parameters():
        parameter.data.fill_(float("nan"))


def _exhaust_gpu(trainer: Any) -> None:
    import torch

    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")


def _break(trainer: Any) -> None:
    raise RuntimeError("sabotage")


def _turn_deaf(trainer: Any) -> None:
    """Ignore SIGTERM, and never come to the end of the step."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    (HERE / f"held-{os.environ['SPARSEBOARD_FENCE']}").touch()
    while True:
        time.sleep(1)


def _slow_disk(trainer: Any) -> None:
    fsync = os.fsync

    def slowly(descriptor: int) -> None:
        time.sleep(1.0)
        fsync(descriptor)

    os.fsync = slowly


def _flood(trainer: Any) -> None:
    """Everything a log should not hold: escape sequences, NUL, bytes that are no text, an endless line."""
    write = sys.stdout.buffer.write
    write(b"\x1b[2J\x1b]0;title\x07 NUL \x00 and \xff\xfe\xc3(\n" + b"x" * (10 << 20) + b"\n")
    for number in range(400_000):
        write(b"flood %d: the quick brown fox jumps over the lazy dog, again and again\n" % number)
    sys.stdout.flush()


def _give_up() -> None:
    """End before anything is imported, as a trainer does whose data is of no use."""
    events = HERE / "events" / f"{int(os.environ['SPARSEBOARD_FENCE']):04d}.jsonl"
    events.parent.mkdir(exist_ok=True)
    end = {"type": "attempt_finished", "outcome": "failed", "reason_code": "data_error", "message": "sabotage"}
    events.write_text(json.dumps(end) + "\n")
    os._exit(1)


_ACTIONS = {
    "hold": _hold,
    "poison": _poison,
    "exhaust_gpu": _exhaust_gpu,
    "break": _break,
    "turn_deaf": _turn_deaf,
    "slow_disk": _slow_disk,
    "flood": _flood,
}


def _install(trainer_module: ModuleType, plan: dict[str, Any]) -> None:
    original = trainer_module.Trainer._train_step

    def train_step(self: Any, step: int) -> Any:
        time.sleep(float(plan.get("pace_s", 0)))
        for action in plan.get(str(step + 1), ()):
            _ACTIONS[action](self)
        return original(self, step)

    trainer_module.Trainer._train_step = train_step


class _Finder(MetaPathFinder):
    """Finds the trainer's module as always, and changes it once it is there."""

    def __init__(self, plan: dict[str, Any]) -> None:
        self._plan = plan

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if name != _TRAINER:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.loader is not None
        spec.loader = _Loader(spec.loader, self._plan)
        return spec


class _Loader(Loader):
    def __init__(self, loader: Loader, plan: dict[str, Any]) -> None:
        self._loader = loader
        self._plan = plan

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        _install(module, self._plan)


def _sabotage() -> None:
    try:
        plan = json.loads((HERE / "sabotage.json").read_text())[os.environ["SPARSEBOARD_FENCE"]]
    except (OSError, ValueError, KeyError):
        return
    if "RANK" in os.environ:
        sys.meta_path.insert(0, _Finder(plan))
    elif "give_up" in plan.get("start", ()):
        _give_up()


_sabotage()
