"""Several GPUs against one: total tokens per second, ours, each process with the batch of one GPU.

    torchrun --nproc_per_node 2 -m benchmarks.train_ddp W1:ddp W2:ddp W2:distribute_modules
    torchrun --nproc_per_node 2 -m benchmarks.train_ddp tiny:ddp --device cpu    # gloo, tries it without a GPU

In every round rank 0 first trains alone while the others wait.
"""

import argparse
import contextlib
import io
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import torch.distributed as dist

from benchmarks.goals import GOALS
from benchmarks.sides import Measured, Task, measure, run_ours, step_ends, train_ours
from benchmarks.tables import Table, judged, table
from benchmarks.timing import Windows, add_arguments, spread
from benchmarks.workloads import WORKLOADS, Workload, build_lm, train_values, write_random_tokens

_MODES: dict[str, dict[str, Any]] = {"ddp": {}, "distribute_modules": {"distribute_modules": True}}
_ALONE = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="+", choices=[f"{name}:{mode}" for name in WORKLOADS for mode in _MODES])
    add_arguments(parser)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    windows = Windows(args.warm_up, 3)
    with joined(args.device) as device:
        size = dist.get_world_size()
        columns = ["workload", "mode", "one: tok/s", f"{size}: tok/s", "ms, one", f"ms, {size}"]
        columns += ["times", "must", "aim", "floor", "peak GiB each"]
        with table(f"{size} processes against one", columns) as rows:
            for case in args.cases:
                name, mode = case.split(":")
                compare(WORKLOADS[name], mode, device, windows, args.rounds, args.windows, rows)


@contextlib.contextmanager
def joined(device: str) -> Iterator[str]:
    """Meet the other processes; yields this one's device. Rank 0 alone prints."""
    if device == "cuda":
        device = f"cuda:{os.environ['LOCAL_RANK']}"
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.startswith("cuda") else "gloo")
    silence = contextlib.nullcontext() if dist.get_rank() == 0 else contextlib.redirect_stdout(io.StringIO())
    try:
        with silence:
            yield device
    finally:
        dist.destroy_process_group()


def compare(
    workload: Workload, mode: str, device: str, windows: Windows, rounds: int, num_windows: int, rows: Table
) -> None:
    """Measure one workload and mode and add its row."""
    size = dist.get_world_size()
    steps = windows.num_steps(num_windows)
    lm = build_lm(workload.name, device)
    alone: list[Measured] = []
    together: list[Measured] = []
    with shared_folder() as folder:
        tasks = {}
        for processes in (1, size):
            tokens = Path(folder, f"{processes}.bin")
            if dist.get_rank() == 0:
                write_random_tokens(tokens, workload, steps * workload.batch_size * processes, lm.config.vocab_size)
            values = train_values(workload, "signum") | (_MODES[mode] if processes > 1 else {})
            tasks[processes] = Task(lm.base_model, tokens, workload.ctx_len, values, windows)
        for number in range(1, rounds + 1):
            if dist.get_rank() == 0:
                with patch.dict(os.environ, _ALONE):
                    alone.append(run_ours(tasks[1]))
                print(f"  round {number}  one: {spread(alone[-1].window_ms)} ms", flush=True)
            together.append(run_together(tasks[size], f"{folder}/{number}"))
            print(f"  round {number}  {size}: {spread(together[-1].window_ms)} ms", flush=True)
    if dist.get_rank() == 0:
        one, many = (spread([ms for run in runs for ms in run.window_ms]) for runs in (alone, together))
        rates = (workload.tokens_per_step / one.median * 1e3, size * workload.tokens_per_step / many.median * 1e3)
        verdict = judged(rates[1] / rates[0], GOALS.get((workload.name, mode)))
        peaks = " → ".join(f"{max(run.peak_gib for run in runs):.1f}" for runs in (alone, together))
        rows.add(workload.name, mode, *(f"{rate:,.0f}" for rate in rates), one, many, *verdict, peaks)


def run_together(task: Task, folder: str) -> Measured:
    """One run of all processes, in a folder that they share."""

    def ends(_own: str) -> list[float]:
        dist.barrier()
        run_dir = train_ours(task, folder)
        dist.barrier()  # rank 0 has written the last event
        return step_ends(run_dir)

    return measure(ends, task.windows)


@contextlib.contextmanager
def shared_folder() -> Iterator[str]:
    """A temporary folder of rank 0 that all processes of this machine know."""
    with tempfile.TemporaryDirectory() as own:
        names = [own]
        dist.broadcast_object_list(names)
        yield names[0]
        dist.barrier()


if __name__ == "__main__":
    main()
