"""Find the sparse coders below a folder: a checkpoint, or a downloaded repository, of upstream or of ours."""

from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import Path

from natsort import natsorted

from sparsify_core.errors import CheckpointError
from sparsify_core.rundir import CoderDir


def find_coders(root: Path) -> dict[str, Path]:
    """Names of the coders below `root` and their folders, in natural order.

    A name is the path below `root`, taken as it is: `layers.3.mlp`, `model.layers.3`, `h.0/seed1`. Hidden folders and
    upstream's `best` are left out. Given `best` itself, the doubled names in there (`h.0/h.0`) are read as one.
    """
    found: dict[str, Path] = {}
    for config in root.rglob(CoderDir(root).config.name):
        parts = config.parent.relative_to(root).parts
        if not parts or parts[0] == "best" or any(part.startswith(".") for part in parts):
            continue
        if CoderDir(config.parent).weights.is_file():
            found["/".join(parts[1:] if len(parts) == 2 and parts[0] == parts[1] else parts)] = config.parent
    return {name: found[name] for name in natsorted(found)}


def choose_coders(root: Path, *, layers: Iterable[str] | None, pattern: str | None) -> dict[str, Path]:
    """The coders of these hookpoints, or whose name or hookpoint matches `pattern`; all of them without either.

    Raises CheckpointError when there are none, or not all `layers`.
    """
    found = find_coders(root)
    if not found:
        raise CheckpointError(f"{root} holds no sparse coder, that is a folder with cfg.json and sae.safetensors")
    chosen = found
    if layers is not None:
        wanted = list(layers)
        for layer in wanted:
            if not any(_belongs(name, layer) for name in found):
                raise CheckpointError(f"{root} has no coder {layer}: it has {', '.join(found)}")
        chosen = {name: path for name, path in chosen.items() if any(_belongs(name, layer) for layer in wanted)}
    if pattern is not None:
        chosen = {n: path for n, path in chosen.items() if fnmatchcase(n, pattern) or fnmatchcase(n, f"{pattern}/*")}
        if not chosen:
            raise CheckpointError(f"no coder in {root} matches {pattern!r}: it has {', '.join(found)}")
    return chosen


def _belongs(name: str, hookpoint: str) -> bool:
    return name == hookpoint or name.startswith(f"{hookpoint}/")
