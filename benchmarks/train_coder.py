"""A sparse coder alone (W3: 4,096 wide, 131,072 latents): ours against EleutherAI's sparsify, by turns in one process.

    PYTHONPATH=FOLDER_WITH_EAI_SPARSIFY python -m benchmarks.train_coder
    python -m benchmarks.train_coder --width 64 --latents 512 --tokens 64 --modes k8:signum    # tries it on a CPU

Both Trainers run on a model that looks activations up: 4 batches of a Zipf mixture of 16,384 directions, by turns.
"""

import argparse
import tempfile
import traceback
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.alternate import alternate
from benchmarks.goals import GOALS
from benchmarks.sides import Task, run_ours, run_peer
from benchmarks.tables import COMPARED, compared_row, table
from benchmarks.timing import Windows, add_arguments
from benchmarks.workloads import ActivationStore, mixture

_BATCHES, _SEQUENCES = 4, 4
_MODES = ("k64:signum", "k192:signum", "k64:adam", "k64:muon")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--modes", nargs="+", default=list(_MODES), help="k and optimizer")
    parser.add_argument("--width", type=int, default=4096)
    parser.add_argument("--latents", type=int, default=131_072)
    parser.add_argument("--tokens", type=int, default=8192, help="per step")
    add_arguments(parser)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    windows = Windows(args.warm_up, 3)
    steps = windows.num_steps(args.windows)
    is_w3 = (args.width, args.latents, args.tokens) == (4096, 131_072, 8192)
    title = f"Coder alone: width {args.width:,}, {args.latents:,} latents, {args.tokens:,} tokens a step"
    with table(title, COMPARED) as rows, tempfile.TemporaryDirectory() as folder:
        store = ActivationStore(mixture(_BATCHES * args.tokens, args.width, args.device)).eval()
        tokens = Path(folder, "tokens.bin")
        ids = np.arange(steps * args.tokens) % (_BATCHES * args.tokens)
        ids.astype(np.uint16).tofile(tokens)
        for mode in args.modes:
            print(mode, flush=True)
            task = Task(store, tokens, args.tokens // _SEQUENCES, mode_values(mode, args.latents), windows)
            try:
                ours, theirs = alternate([("ours", run_ours, task), ("sparsify", run_peer, task)], args.rounds)
            except Exception:  # noqa: BLE001 - the other modes are still worth the machine's time
                traceback.print_exc()
                rows.add_failure("W3" if is_w3 else "coder", mode)
                continue
            goal = GOALS.get(("W3", mode)) if is_w3 else None
            rows.add(*compared_row("W3" if is_w3 else "coder", mode, theirs, ours, args.tokens, goal))


def mode_values(mode: str, num_latents: int) -> dict[str, Any]:
    """`k64:adam` -> values of TrainConfig."""
    k, optimizer = mode.removeprefix("k").split(":")
    return {
        "hookpoints": ["rows"],
        "batch_size": _SEQUENCES,
        "optimizer": optimizer,
        "sae": {"num_latents": num_latents, "k": int(k)},
    }


if __name__ == "__main__":
    main()
