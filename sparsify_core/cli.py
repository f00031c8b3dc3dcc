"""The command line: upstream's flat flags to train, and the commands beside it. Torch is imported only to work.

Exit codes: 0 completed, or stopped by SIGTERM with a checkpoint saved; 1 failed; 2 wrong usage or configuration.
"""

import importlib
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from sparsify_core.config import RunConfig, iter_fields, nest
from sparsify_core.config.run import LAUNCH_SECTION
from sparsify_core.errors import ConfigError, SparsifyError
from sparsify_core.flags import FlagParser, explain, load_file, merge
from sparsify_core.rundir import RunDir

_COMMANDS = {
    "convert": "sparsify_core.convert",
    "eval": "sparsify_core.evaluation.command",
    "kernels": "sparsify_core.kernel_table",
    "modules": "sparsify_core.module_table",
}
"""First word of the command line -> the module whose `run(arguments)` carries it out, imported only then."""

_RESERVED = ("inspect", "export")


def main(argv: Sequence[str]) -> int:
    """Run the command line; returns the exit code."""
    try:
        if not sys.stderr.isatty():
            # Progress bars fill a log file with carriage returns. That of GGUF files obeys only this, at its import.
            os.environ.setdefault("TQDM_DISABLE", "1")
        if argv and argv[0] in _COMMANDS:
            importlib.import_module(_COMMANDS[argv[0]]).run(argv[1:])
        else:
            _train(argv)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except SparsifyError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _train(argv: Sequence[str]) -> None:
    config, run_dir, attempt = parse(argv)
    logging.basicConfig(level=logging.INFO, format=f"{_rank_prefix()}%(message)s", stream=sys.stdout)
    # Imported late: torch takes seconds, and --help and errors in flags must not wait for it.
    from sparsify_core.train.launch import launch

    launch(config, run_dir, attempt)


def _rank_prefix() -> str:
    """`[rank1]: ` as PyTorch writes it before its own lines; nothing with one process."""
    return f"[rank{os.environ.get('RANK', 0)}]: " if int(os.environ.get("WORLD_SIZE", 1)) > 1 else ""


def parse(argv: Sequence[str], base: Mapping[str, Any] | None = None) -> tuple[RunConfig, RunDir, int | None]:
    """Flags -> configuration, run directory, number of the attempt (None: the next free one).

    Args:
        base: values of the configuration that file and flags override.

    Raises ConfigError, one line per wrong field. Exits for --help.
    """
    if argv and argv[0] in _RESERVED:
        raise ConfigError(
            f"{argv[0]!r} is reserved for a later version: to train on a folder of this name write ./{argv[0]}"
        )
    given = _build_parser().read(argv)
    file, run_dir, attempt = given.pop("config"), given.pop("run_dir"), given.pop("attempt")
    from_file = load_file(Path(file)) if file else {}
    from_file.pop(LAUNCH_SECTION, None)
    values = merge(merge(dict(base or {}), from_file), nest(given))
    try:
        config = RunConfig.model_validate(values)
    except ValidationError as error:
        raise ConfigError(explain(error)) from None
    root = Path(run_dir) if run_dir else Path(config.save_dir, config.run_name or "unnamed")
    if not run_dir and RunDir(root).published() and not config.resume:
        raise ConfigError(f"{root} already holds checkpoints: give another --run_name or --save_dir")
    return config, RunDir(root), attempt


def _build_parser() -> FlagParser:
    parser = FlagParser(
        iter_fields(RunConfig),
        prog="python -m sparsify_core",
        usage="\n       ".join(
            ["%(prog)s [MODEL] [DATASET] [--flag value ...]", *map("%(prog)s {} --help".format, _COMMANDS)]
        ),
        description="Train sparse autoencoders or transcoders on the activations of a language model.",
        positional=("model", "dataset"),
    )
    parser.add_argument("--config", default=None, metavar="FILE", help="JSON or YAML file; flags override it")
    parser.add_argument(
        "--run_dir", "--run-dir", default=None, metavar="DIR", help="folder of the run (default: save_dir/run_name)"
    )
    parser.add_argument(
        "--attempt", default=None, type=int, metavar="N", help="number of the attempt (default: next free)"
    )
    return parser
