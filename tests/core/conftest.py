"""One way to train on the tiny model."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from oracle import Oracle, install
from runs import BASE, Trained, TrainFunction, flags
from sparsify_core.cli import main
from sparsify_core.rundir import RunDir

torch.set_num_threads(1)


@pytest.fixture
def one_core() -> Iterator[None]:
    """On tiny tensors a second thread only waits, and on a busy machine it waits very long."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {sorted(allowed)[os.getpid() % len(allowed)]})
    yield
    os.sched_setaffinity(0, allowed)


@pytest.fixture(scope="session")
def oracle() -> Oracle:
    """Upstream's package."""
    return Oracle(install())


@pytest.fixture
def train(tiny_model: Path, tiny_text: Path, tmp_path: Path, one_core: None) -> TrainFunction:
    """`train(name, flag=value)`: run the command line in this process on the tiny model and text."""

    def run(name: str = "run", *, model: Any = tiny_model, dataset: Any = tiny_text, **changes: Any) -> Trained:
        root = tmp_path / name
        words = [str(model), str(dataset), *flags({**BASE, **changes}), "--run_dir", str(root)]
        return Trained(main(words), RunDir(root))

    return run


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that the Hub's client takes for the repository `owner/saes`, with its own rule for patterns."""
    import huggingface_hub
    from huggingface_hub.utils import filter_repo_objects

    def download(name: str, allow_patterns: list[str] | None = None) -> str:
        assert name == "owner/saes"
        files = [p.relative_to(tmp_path / "hub").as_posix() for p in (tmp_path / "hub").rglob("*") if p.is_file()]
        for file in filter_repo_objects(files, allow_patterns=allow_patterns):
            (tmp_path / "snapshot" / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(tmp_path / "hub" / file, tmp_path / "snapshot" / file)
        return str(tmp_path / "snapshot")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    return tmp_path / "hub"


@pytest.fixture
def attempt(tiny_model: Path, tiny_text: Path, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """`attempt(name, flag=value)`: what `torchrun` takes, with a run's command line and the step to stop at."""

    def words(name: str, stop_at: int | None = None, **changes: Any) -> dict[str, Any]:
        chosen = flags({**BASE, "batch_size": 2, **changes})
        return {
            "words": [str(tiny_model), str(tiny_text), *chosen, "--run_dir", str(tmp_path / name)],
            "stop_at": stop_at,
        }

    return words
