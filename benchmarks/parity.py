"""Does our trainer learn as well as EleutherAI's own? Same model, tokens and seeds; held-out FVU side by side.

    python -m benchmarks.parity                  # on the CPU, about 20 minutes a seed on two cores
    python -m benchmarks.parity --device cuda --seeds 0 1 2

The demo model (SmolLM2-135M-Instruct, cut behind layer 5, which changes no activation there) reads the King James
Bible: 200 steps of 2,048 tokens, 4,608 latents, k = 32, layer 5. All positions are trained on; position 0, an attention
sink, is left out of the evaluation, on 16,384 tokens that nobody trains on. The seed orders the text and initializes
the coder. Three trainers: eai-sparsify 1.3.3, ours, and ours with upstream_compat. On CUDA sparsify runs its coder in
bfloat16.
"""

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))

from oracle import Oracle, install
from peer import train_peer
from runs import Trained
from sparsify_core import MemmapDataset, SaeConfig, SparseCoder, TrainConfig, Trainer
from sparsify_core.data.tokenize import chunk_texts
from sparsify_core.demo import MODEL_NAME
from sparsify_core.demo.__main__ import prepare
from sparsify_core.demo.text import bible_chapters

HOOKPOINT = "layers.5"
CTX_LEN, BATCH_SIZE, NUM_STEPS, HELD_OUT = 256, 8, 200, 64
SAE = {"expansion_factor": 8, "k": 32}
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "adam": {"optimizer": "adam", "lr": 1e-3, "lr_warmup_steps": 10},
    "signum": {"optimizer": "signum"},
}
PARITY_STEPS = 50

Results = dict[str, dict[str, list[tuple[float, list[float]]]]]
"""Optimizer -> trainer -> (held-out FVU, FVU of every step) of each seed."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=NUM_STEPS)
    parser.add_argument("--demo_dir", type=Path, default=Path.home() / ".local/share/sparseboard/demo")
    parser.add_argument(
        "--prepared", type=Path, help="folder to keep the cut model and the tokens in, and take them from"
    )
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = args.prepared or Path(scratch)
        if not (folder / "held_out.bin").is_file():
            make_inputs(args.demo_dir, folder, args.seeds, args.steps)
        results = compare(folder, Path(scratch), args.seeds, args.steps, args.device)
    report(results, args.device)


def make_inputs(demo_dir: Path, folder: Path, seeds: list[int], num_steps: int) -> None:
    """Write `model/`, `train-<seed>.bin` and `held_out.bin` into `folder`."""
    prepare(demo_dir)
    tokenizer = AutoTokenizer.from_pretrained(demo_dir / MODEL_NAME)
    model = AutoModelForCausalLM.from_pretrained(demo_dir / MODEL_NAME, dtype=torch.float32)
    model.model.layers = model.model.layers[: int(HOOKPOINT.rpartition(".")[2]) + 1]
    model.config.num_hidden_layers = len(model.model.layers)
    model.save_pretrained(folder / "model")
    rows = chunk_texts(tokenizer, bible_chapters(), CTX_LEN).astype(np.uint16)
    rows = np.random.default_rng(0).permutation(rows)
    rows[:HELD_OUT].tofile(folder / "held_out.bin")
    for seed in seeds:
        order = np.random.default_rng(seed).permutation(len(rows) - HELD_OUT) + HELD_OUT
        rows[order[: num_steps * BATCH_SIZE]].tofile(folder / f"train-{seed}.bin")


def compare(folder: Path, scratch: Path, seeds: list[int], num_steps: int, device: str) -> Results:
    rows = held_out_rows(folder, device)
    results: Results = {}
    for name, values in OPTIMIZERS.items():
        for seed in seeds:
            common = {**values, "batch_size": BATCH_SIZE, "hookpoints": [HOOKPOINT], "init_seeds": [seed]}
            tokens = folder / f"train-{seed}.bin"
            outcomes = {
                "sparsify": run_peer(folder / "model", scratch, tokens, {**common, "num_steps": num_steps}, device)
            }
            for label, compat in (("ours", False), ("upstream_compat", True)):
                outcomes[label] = run_ours(folder / "model", scratch, tokens, common, device, compat=compat)
            for label, (coder, series) in outcomes.items():
                fvu = held_out_fvu(coder, rows)
                results.setdefault(name, {}).setdefault(label, []).append((fvu, series))
                print(f"{name:8s} seed {seed}  {label:16s} held-out FVU {fvu:.4f}", flush=True)
    return results


def run_peer(
    model: Path, scratch: Path, tokens: Path, values: dict[str, Any], device: str
) -> tuple[SparseCoder, list[float]]:
    name = f"peer-{values['optimizer']}-{values['init_seeds'][0]}"
    case = {key: value for key, value in values.items() if key != "num_steps"} | {"sae": SAE, "tokens": str(tokens)}
    logged = train_peer(
        Oracle(install()),
        model,
        scratch,
        {name: case},
        ctx_len=CTX_LEN,
        device=device,
        num_threads=torch.get_num_threads(),
    )
    series = [info[f"fvu/{HOOKPOINT}"] for info in logged[name]]
    if len(series) != values["num_steps"]:
        raise SystemExit(f"sparsify made {len(series)} steps instead of {values['num_steps']}")
    return SparseCoder.load_from_disk(scratch / name / HOOKPOINT, device), series


def run_ours(
    model: Path, scratch: Path, tokens: Path, values: dict[str, Any], device: str, *, compat: bool
) -> tuple[SparseCoder, list[float]]:
    name = f"ours-{values['optimizer']}-{values['init_seeds'][0]}-{compat}"
    config = TrainConfig(
        SaeConfig(**SAE), **values, upstream_compat=compat, eval_tokens=0, save_dir=str(scratch), run_name=name
    )
    lm = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).to(device)
    trainer = Trainer(config, MemmapDataset(tokens, CTX_LEN), lm)
    trainer.fit()
    return trainer.saes[HOOKPOINT].to(device), Trained(0, trainer.run_dir).series(f"fvu/{HOOKPOINT}")


@torch.no_grad()
def held_out_rows(folder: Path, device: str) -> torch.Tensor:
    """Activations (tokens, width) of the held-out text behind position 0, float32."""
    lm = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32).base_model.to(device)
    outputs: list[torch.Tensor] = []
    lm.get_submodule(HOOKPOINT).register_forward_hook(
        lambda _module, _args, out: outputs.append((out[0] if isinstance(out, tuple) else out)[:, 1:].flatten(0, 1))
    )
    ids = np.fromfile(folder / "held_out.bin", np.uint16).astype(np.int64).reshape(-1, CTX_LEN)
    for batch in torch.from_numpy(ids).split(BATCH_SIZE):
        lm(batch.to(device))
    return torch.cat(outputs)


@torch.no_grad()
def held_out_fvu(coder: SparseCoder, rows: torch.Tensor) -> float:
    error = sum(
        float((part - coder.decode(*coder.encode(part)[:2])).double().square().sum()) for part in rows.split(2048)
    )
    return error / float((rows.double() - rows.double().mean(0)).square().sum())


def report(results: Results, device: str) -> None:
    name = torch.cuda.get_device_name() if device == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    print(f"\n{name}, torch {torch.__version__}, model in float32, {OPTIMIZERS}")
    print(
        f"optimizer  trainer          held-out FVU: mean, spread  largest relative difference in {PARITY_STEPS} steps"
    )
    for optimizer, by_trainer in results.items():
        for trainer, outcomes in by_trainer.items():
            values = [fvu for fvu, _ in outcomes]
            pairs = zip(outcomes, by_trainer["sparsify"], strict=True)
            worst = max(largest_difference(series, reference) for (_, series), (_, reference) in pairs)
            spread = max(values) - min(values)
            print(f"{optimizer:10s} {trainer:16s} {statistics.mean(values):13.4f} {spread:13.4f} {worst:18.1e}")
    print(json.dumps({o: {t: [fvu for fvu, _ in outcomes] for t, outcomes in by.items()} for o, by in results.items()}))


def largest_difference(series: list[float], reference: list[float]) -> float:
    """Relative, over the first PARITY_STEPS steps."""
    ours, theirs = np.array(series[:PARITY_STEPS]), np.array(reference[:PARITY_STEPS])
    return float(np.max(np.abs(ours / theirs - 1)))


if __name__ == "__main__":
    main()
