"""`python -m sparsify_core.demo DIR` makes the model and the text in DIR, each at once or not at all; repeatable."""

import argparse
import fcntl
import shutil
import sys
from pathlib import Path

from sparsify_core.demo import MODEL_NAME, TEXT_NAME
from sparsify_core.errors import DiskFullError, SparsifyError

_NEEDED_MB = 800


def prepare(folder: Path) -> None:
    """Make what is missing in `folder`. Raises DataError without the demo's packages, DiskFullError without space."""
    model, text = folder / MODEL_NAME, folder / TEXT_NAME
    if model.is_dir() and text.is_file():
        _say("the demo model and text are ready")
        return
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _make_missing(model, text)


def _make_missing(model: Path, text: Path) -> None:
    _check_space(text.parent)
    if not text.is_file():
        from sparsify_core.demo.text import write_text

        _say("collecting the demo text: King James Bible, docstrings of torch and transformers")
        staged = text.with_name(".text.tmp")
        try:
            num_documents = write_text(staged)
            staged.replace(text)
        finally:
            staged.unlink(missing_ok=True)
        _say(f"wrote {num_documents} documents, {text.stat().st_size / 1e6:.0f} MB")
    if not model.is_dir():
        from sparsify_core.demo.model import convert_model

        _say("converting the demo model SmolLM2-135M-Instruct (once, about 20 seconds)")
        staged = model.with_name(".model.tmp")
        shutil.rmtree(staged, ignore_errors=True)  # left by a killed conversion
        staged.mkdir()
        try:
            convert_model(staged)
            staged.rename(model)
        finally:
            shutil.rmtree(staged, ignore_errors=True)
        _say("the demo model is ready")


def _check_space(folder: Path) -> None:
    free_mb = shutil.disk_usage(folder).free // 1_000_000
    if free_mb < _NEEDED_MB:
        raise DiskFullError(
            f"only {free_mb} MB are free on the disk of {folder}, the demo needs {_NEEDED_MB} MB: "
            "free some space and start again; nothing is lost"
        )


def _say(sentence: str) -> None:
    sys.stdout.write(f"demo: {sentence}\n")
    sys.stdout.flush()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m sparsify_core.demo", description=__doc__)
    parser.add_argument("folder", type=Path, metavar="DIR")
    try:
        prepare(parser.parse_args().folder)
    except (SparsifyError, OSError) as error:
        sys.stderr.write(f"demo: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
