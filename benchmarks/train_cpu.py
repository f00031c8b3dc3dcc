"""The demo's preset on the CPU, the whole loop: ours against EleutherAI's sparsify, by turns in one process.

    PYTHONPATH=FOLDER_WITH_EAI_SPARSIFY python -m benchmarks.train_cpu

sparsify is timed with the model as it is, whose layers behind the hookpoint it runs in vain, and with a model that was
cut there by hand. Both Trainers get the same tokens and the model without its head; every position is trained on, which
sparsify cannot do otherwise.
"""

import argparse
import copy
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModel, AutoTokenizer

from benchmarks import demo_run
from benchmarks.alternate import alternate
from benchmarks.goals import GOALS
from benchmarks.sides import Task, run_ours, run_peer
from benchmarks.tables import COMPARED, compared_row, table
from benchmarks.timing import Windows, add_arguments
from sparsify_core.data.tokenize import chunk_texts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    demo_run.add_arguments(parser)
    add_arguments(parser, length=2, warm_up=2, windows=3)
    args = parser.parse_args()
    config = demo_run.preset(args)
    windows = Windows(args.warm_up, 2)
    steps = windows.num_steps(args.windows)
    names = ("hookpoints", "batch_size", "optimizer", "lr", "lr_warmup_steps")
    values = {name: config[name] for name in names} | {"sae": {"k": config["sae"]["k"], "expansion_factor": 8}}
    lm = AutoModel.from_pretrained(config["model"], dtype=torch.float32).eval()
    with table("The demo on the CPU", COMPARED) as rows, tempfile.TemporaryDirectory() as folder:
        tokens = Path(folder, "tokens.bin")
        write_tokens(tokens, config, steps * config["batch_size"])
        whole = Task(lm, tokens, config["ctx_len"], values, windows)
        short = Task(cut(lm, args.layer + 1), tokens, config["ctx_len"], values, windows)
        sides = [("ours", run_ours, whole), ("sparsify", run_peer, whole), ("sparsify, cut model", run_peer, short)]
        ours, theirs, theirs_cut = alternate(sides, args.rounds)
        tokens_per_step = config["batch_size"] * config["ctx_len"]
        for mode, other in (("cpu", theirs), ("cpu, its model cut", theirs_cut)):
            rows.add(*compared_row("demo", mode, other, ours, tokens_per_step, GOALS.get(("demo", mode))))


def cut(lm: Any, num_layers: int) -> Any:
    """The model without what lies behind its first layers; the weights of those are shared."""
    short = copy.copy(lm)
    short._modules = dict(lm._modules)
    short.config = copy.deepcopy(lm.config)
    short.layers = lm.layers[:num_layers]
    short.config.num_hidden_layers = num_layers
    return short


def write_tokens(path: Path, config: dict[str, Any], num_sequences: int) -> None:
    """The start of the demo's text as a memmap of uint16 ids."""
    tokenizer = AutoTokenizer.from_pretrained(config["model"])
    rows = chunk_texts(tokenizer, demo_run.texts(config, 4000), config["ctx_len"])
    rows[:num_sequences].astype(np.uint16).tofile(path)


if __name__ == "__main__":
    main()
