"""Tiny models and one way to train on them."""

from pathlib import Path
from typing import Any

import pytest
import torch
from runs import BASE, Trained, TrainFunction, flags

from sparsify_core.cli import main
from sparsify_core.rundir import RunDir

torch.set_num_threads(1)


@pytest.fixture
def train(tiny_model: Path, tiny_text: Path, tmp_path: Path) -> TrainFunction:
    """`train(name, flag=value)`: run the command line in this process on the tiny model and text."""

    def run(name: str = "run", *, model: Any = tiny_model, dataset: Any = tiny_text, **changes: Any) -> Trained:
        root = tmp_path / name
        threads = torch.get_num_threads()
        try:
            code = main([str(model), str(dataset), *flags({**BASE, **changes}), "--run_dir", str(root)])
        finally:
            torch.set_num_threads(threads)
        return Trained(code, RunDir(root))

    return run
