"""`python -m sparsify_core convert UPSTREAM_RUN RUN_DIR`: go on here with a run that EleutherAI/sparsify began."""

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path

from sparsify_core.cli import parse
from sparsify_core.config.run import GIVEN
from sparsify_core.errors import ConfigError
from sparsify_core.rundir import RunDir


def run(argv: Sequence[str]) -> None:
    """Convert. Raises SparsifyError before anything is written."""
    parser = argparse.ArgumentParser(
        prog="python -m sparsify_core convert",
        usage="%(prog)s UPSTREAM_RUN RUN_DIR [MODEL] [DATASET] [--num_processes N] [--flag value ...]",
        description="Convert a run folder of EleutherAI/sparsify, training state included, into one that resumes here. "
        "The flags are those of training; they override the run's configuration.",
        allow_abbrev=False,
    )
    parser.add_argument("upstream_run", type=Path, metavar="UPSTREAM_RUN", help="folder that holds state.pt")
    parser.add_argument("run_dir", type=Path, metavar="RUN_DIR", help="folder to write, without checkpoints")
    parser.add_argument(
        "--num_processes",
        "--num-processes",
        type=int,
        metavar="N",
        help="processes that trained the run, which sparsify stores only under distribute_modules [default: 1]",
    )
    given, rest = parser.parse_known_args(argv)
    _convert(given.upstream_run, RunDir(given.run_dir), given.num_processes, rest)


def _convert(source: Path, run_dir: RunDir, num_processes: int | None, flags: Sequence[str]) -> None:
    """Convert, and say what does not carry over. Raises SparsifyError before anything is written."""
    # Imported late: they bring torch, and --help must not wait for it.
    from sparsify_core.formats.upstream_run import read_config
    from sparsify_core.train.convert import convert

    theirs = read_config(source)
    base = {"model": GIVEN, "dataset": GIVEN, **theirs}
    config, chosen, attempt = parse(["--run_dir", str(run_dir.root), *flags], base)
    if attempt is not None or chosen != run_dir:
        raise ConfigError("--attempt and --run_dir are flags of training: leave them out")
    if GIVEN in (config.model, config.dataset):
        raise ConfigError(
            f"config.json of {source} names no model and dataset, as sparsify's Trainer class leaves it: give them "
            "behind RUN_DIR, and --ctx_len"
        )
    step, notes = convert(source, theirs, config, run_dir, num_processes=num_processes)
    for note in notes:
        print(f"note: {note}")
    resume = ["--config", str(run_dir.config), "--run_dir", str(run_dir.root), "--resume"]
    print(f"converted {source} behind optimizer step {step}; go on with: python -m sparsify_core {shlex.join(resume)}")
