"""A training step, language model included: ours against EleutherAI's sparsify, by turns in one process.

    PYTHONPATH=FOLDER_WITH_EAI_SPARSIFY python -m benchmarks.train_step W1 --modes signum adam transcode

For the loss fvu neither side gets the model's head, as neither command line loads it. batchtopk, which sparsify does
not have, is compared with our own topk.
"""

import argparse
import tempfile
import traceback
from pathlib import Path
from typing import Any

import torch

from benchmarks.alternate import alternate
from benchmarks.goals import GOALS
from benchmarks.sides import Task, run_ours, run_peer
from benchmarks.tables import COMPARED, Table, compared_row, table
from benchmarks.timing import Windows, add_arguments
from benchmarks.workloads import MODES, WORKLOADS, Workload, build_lm, train_values, write_random_tokens

_OURS_ALONE = ("batchtopk",)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workloads", nargs="+", choices=WORKLOADS)
    parser.add_argument("--modes", nargs="+", choices=MODES, default=["signum"])
    add_arguments(parser)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    windows = Windows(args.warm_up, 3)
    steps = windows.num_steps(args.windows)
    with table("Training steps", COMPARED) as rows, tempfile.TemporaryDirectory() as folder:
        for name in args.workloads:
            workload = WORKLOADS[name]
            lm = build_lm(name, args.device)
            tokens = Path(folder, f"{name}.bin")
            write_random_tokens(tokens, workload, steps * workload.batch_size, lm.config.vocab_size)
            for mode in args.modes:
                print(f"{name} {mode}", flush=True)
                try:
                    compare(workload, mode, lm, tokens, windows, args.rounds, rows)
                except Exception:  # noqa: BLE001 - the other modes are still worth the machine's time
                    traceback.print_exc()
                    rows.add_failure(name, mode)


def compare(workload: Workload, mode: str, lm: Any, tokens: Path, windows: Windows, rounds: int, rows: Table) -> None:
    """Measure one mode and add its row."""

    def task(of: str) -> Task:
        values = train_values(workload, of)
        return Task(lm if "loss_fn" in values else lm.base_model, tokens, workload.ctx_len, values, windows)

    other = ("our topk", run_ours, task("signum")) if mode in _OURS_ALONE else ("sparsify", run_peer, task(mode))
    ours, theirs = alternate([("ours", run_ours, task(mode)), other], rounds)
    label = f"{mode}, against our topk" if mode in _OURS_ALONE else mode
    goal = GOALS.get((workload.name, mode))
    rows.add(*compared_row(workload.name, label, theirs, ours, workload.tokens_per_step, goal))


if __name__ == "__main__":
    main()
