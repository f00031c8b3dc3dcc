"""Find what is to be evaluated: a checkpoint of ours, a run, an upstream folder, or a repository of the Hub.

Torch-free.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from natsort import natsorted

from sparsify_core.errors import CheckpointError
from sparsify_core.formats.hub import download
from sparsify_core.formats.tree import choose_coders
from sparsify_core.manifest import verify_checkpoint
from sparsify_core.rundir import CheckpointDir, RunDir


@dataclass(frozen=True)
class Source:
    """A folder of coders. `config` is what its config.json says (nothing without one), `evaluation` its eval.json;
    `problems` are sentences about newer checkpoints that were passed over.
    """

    root: Path
    config: dict[str, Any]
    evaluation: dict[str, Any] | None
    problems: tuple[str, ...] = ()

    def choose(self, patterns: Sequence[str]) -> dict[str, Path]:
        """Names and folders of the coders that one of the shell patterns matches, or of all without any.

        Raises CheckpointError when a pattern matches none.
        """
        chosen: dict[str, Path] = {}
        for pattern in patterns or (None,):
            chosen |= choose_coders(self.root, layers=None, pattern=pattern)
        return {name: chosen[name] for name in natsorted(chosen)}


def open_source(name: str) -> Source:
    """Raises CheckpointError when nothing is there, or when a checkpoint is damaged."""
    root = Path(name).expanduser()
    if not root.is_dir():
        if root.exists() or name.startswith(("/", ".", "~")) or name.count("/") != 1:
            raise CheckpointError(f"there is no checkpoint folder {name}: check the path, or give a Hub id, owner/name")
        return _read(download(name, ["config.json", "eval.json", "*cfg.json", "*sae.safetensors"]))
    if CheckpointDir(root).manifest.is_file():
        verify_checkpoint(CheckpointDir(root))
        return _read(root)
    published = RunDir(root).published()
    problems: list[str] = []
    for checkpoint in reversed(published):
        try:
            verify_checkpoint(checkpoint)
        except CheckpointError as error:
            problems.append(str(error))
            continue
        return _read(checkpoint.root, problems)
    if published:
        raise CheckpointError(f"{name} has no intact checkpoint: {problems[0]}")
    return _read(root)


def _read(root: Path, problems: Sequence[str] = ()) -> Source:
    paths = CheckpointDir(root)
    config: dict[str, Any] = {}
    # Upstream's best/ has its config.json one folder up, beside the other coders.
    for path in (paths.config, CheckpointDir(root.parent).config):
        if path.is_file():
            config = _load(path)
            break
    evaluation = _load(paths.evaluation) if paths.evaluation.is_file() else None
    return Source(root, config, evaluation, tuple(problems))


def _load(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{path} must hold names and values, got {type(values).__name__}")
    return values
