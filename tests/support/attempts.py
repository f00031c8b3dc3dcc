"""Carry out several attempts, one after the other, in the same ranks: starting torchrun costs far more than training.

`torchrun attempts.py FILE`, where FILE holds a JSON list of {"words": [command line], "port": number, "stop_at": step
or null}.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch

from sparsify_core.cli import main
from sparsify_core.train import trainer

_train_step = trainer.Trainer._train_step
_run = trainer.Trainer.run


def _stop_at(step: int | None) -> None:
    """Have the last rank's trainer find a stop request one step early, which all act on behind this step."""

    def stopping(self: trainer.Trainer, number: int) -> Any:
        if number + 2 == step and self._group.rank == self._group.world_size - 1:
            self.stop._asked_at = 0.0
        return _train_step(self, number)

    trainer.Trainer._train_step = stopping


def _run_and_note_weights(self: trainer.Trainer) -> bool:
    """Leave every rank's own weights behind: only one rank's are in the checkpoint."""
    completed = _run(self)
    weights = {unit.name: unit.coder.state_dict() for unit in self._units}
    torch.save(weights, self._saver._run_dir.root / f"rank{self._group.rank}.pt")
    return completed


def carry_out(attempts: list[dict[str, Any]]) -> None:
    os.environ["TORCHELASTIC_USE_AGENT_STORE"] = "False"  # it would keep what the ranks of the attempt before wrote
    trainer.Trainer.run = _run_and_note_weights
    for attempt in attempts:
        os.environ["MASTER_PORT"] = str(attempt["port"])
        _stop_at(attempt["stop_at"])
        if code := main(attempt["words"]):
            sys.exit(code)


if __name__ == "__main__":
    carry_out(json.loads(Path(sys.argv[1]).read_text()))
