"""Milliseconds per optimizer step from a cache of activations, against the live model in the same process.

    python -m benchmarks.train_cached --steps 60 --folder /tmp/somewhere

W1: SmolLM2-135M's shape with random weights on random tokens, layers.15, 18,432 latents, k = 32, 65,536 tokens a step.
`live` runs the model, `write` fills the cache (its time is printed apart) and trains from it, `read` finds it there:
from the page cache where memory suffices, so it shows what the reader costs, not the disk.
"""

import argparse
import tempfile
from pathlib import Path

import torch

from benchmarks.sides import Task, step_ends, train_ours
from benchmarks.timing import Windows, spread
from benchmarks.workloads import WORKLOADS, build_lm, train_values, write_random_tokens
from sparsify_core.events import Phase, read_events
from sparsify_core.rundir import RunDir

WARM_UP = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--folder", type=Path, default=None, help="where the cache lies while this runs")
    parser.add_argument("--small", action="store_true", help="a model for a CPU")
    args = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    workload = WORKLOADS["tiny" if args.small else "W1"]
    lm = build_lm(workload.name, device).base_model
    name = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    print(f"{name}, torch {torch.__version__}, {args.steps} steps, {WARM_UP} of them warm-up")
    windows = Windows(WARM_UP, 5)
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        tokens = Path(folder, "tokens.bin")
        write_random_tokens(tokens, workload, args.steps * workload.batch_size, lm.config.vocab_size)
        for run in ("live", "write", "read"):
            cache = None if run == "live" else str(Path(folder, "cache"))
            values = {**train_values(workload, "signum"), "run_name": run, "cache_activations": cache}
            report(run, train_ours(Task(lm, tokens, workload.ctx_len, values, windows), folder), windows)


def report(run: str, run_dir: RunDir, windows: Windows) -> None:
    print(f"{run:5s} {spread(windows.milliseconds(step_ends(run_dir)))} ms a step", flush=True)
    events = [event for event, _ in read_events(run_dir.events(1), limit_bytes=1 << 30)]
    writing = [event for event in events if isinstance(event, Phase) and event.name == "caching activations"]
    if writing:
        seconds = writing[-1].ts - writing[0].ts
        print(f"      {writing[0].detail}, written in {seconds:.1f} s", flush=True)


if __name__ == "__main__":
    main()
