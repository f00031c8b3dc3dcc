"""Start from sparse coders that were trained before: of a checkpoint folder, or of a repository on the Hub."""

from collections.abc import Sequence
from pathlib import Path

from sparsify_core.errors import CheckpointError
from sparsify_core.formats.hub import download
from sparsify_core.rundir import CheckpointDir, RunDir
from sparsify_core.train.units import Unit, load_weights


def start_from(source: str, units: Sequence[Unit]) -> None:
    """Take the weights of `units` from the coders of the same names in `source`.

    Args:
        source: a local folder, or else a Hub id `owner/name`, of which only these coders' files are downloaded.

    Raises CheckpointError when the source cannot be had, lacks a coder, or holds one that does not fit.
    """
    names = [unit.name for unit in units]
    folder = Path(source).expanduser()
    if not folder.is_dir():
        folder = _download(source, names)
    for name in names:
        if not CheckpointDir(folder).coder(name).config.is_file():
            published = RunDir(folder).published()
            way_out = (
                f"give its checkpoint {published[-1].root}" if published else "give a folder or repository that has one"
            )
            raise CheckpointError(f"finetune = {source} has no coder {name}: {way_out}")
    load_weights(units, folder)


def _download(source: str, names: Sequence[str]) -> Path:
    if source.startswith(("/", ".", "~")) or source.count("/") != 1:
        raise CheckpointError(f"finetune = {source} does not exist: give a folder, or a Hub id (owner/name)")
    root = CheckpointDir(Path())
    files = [file.as_posix() for name in names for file in (root.coder(name).config, root.coder(name).weights)]
    try:
        return download(source, files)
    except CheckpointError as error:
        raise CheckpointError(f"finetune = {error}") from error
