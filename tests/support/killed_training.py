"""Train, be killed at a random moment, resume, and so on: `python killed_training.py CONFIG RUN_DIR KILLS SEED`.

One process that has everything imported forks those that train: importing takes longer than training. Ends with 0 when
no checkpoint was lost and the last one, which nobody kills, came to its end.
"""

import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

from sparsify_core import cli
from sparsify_core.errors import CheckpointError
from sparsify_core.manifest import verify_checkpoint
from sparsify_core.rundir import CheckpointDir, RunDir
from sparsify_core.train import launch, trainer

_LOADED = launch
"""Its import is what takes long."""
_PACE_S = 0.02
_UP_TO_S = 0.6
_train_step = trainer.Trainer._train_step


def start(words: list[str]) -> tuple[int, int]:
    """The command line in a process of its own; returns its id, and a pipe that speaks when training begins."""
    outlet, inlet = os.pipe()
    child = os.fork()
    if child:
        os.close(inlet)
        return child, outlet
    status = 1

    def train_step(self: trainer.Trainer, step: int) -> Any:
        os.write(inlet, b".")
        time.sleep(_PACE_S)
        return _train_step(self, step)

    try:
        trainer.Trainer._train_step = train_step
        status = cli.main(words)
    finally:
        os._exit(status)


def newest_intact(run_dir: RunDir) -> int:
    return max((checkpoint.step for checkpoint in run_dir.published() if is_intact(checkpoint)), default=0)


def is_intact(checkpoint: CheckpointDir) -> bool:
    try:
        verify_checkpoint(checkpoint)
    except CheckpointError:
        return False
    return True


def main(config: str, root: str, kills: int, seed: int) -> int:
    words = ["--config", config, "--run_dir", root]
    run_dir, chance, newest, killed = RunDir(Path(root)), random.Random(seed), 0, 0
    while killed < kills:
        child, outlet = start(words)
        if os.read(outlet, 1):
            time.sleep(chance.uniform(0, _UP_TO_S))
            os.kill(child, signal.SIGKILL)
            killed += 1
        os.close(outlet)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if status not in (0, -signal.SIGKILL):
            return status
        now = newest_intact(run_dir)
        if now < newest:
            print(f"the checkpoint of step {newest} is lost, the newest is that of step {now}")
            return 1
        newest = now
        if status == 0:  # it came to its end before it could be killed: from the beginning
            shutil.rmtree(run_dir.root)
            newest = 0
    child, _ = start(words)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
