"""Milliseconds per optimizer step: ours against EleutherAI's sparsify, in one process, same settings, alternating.

    PYTHONPATH=FOLDER_WITH_EAI_SPARSIFY python benchmarks/step.py W1 --modes signum adam transcode --steps 14

The workloads are language models of real shapes with random weights on random tokens, in bfloat16 on CUDA:
W1 is SmolLM2-135M's shape, layers.15, 18,432 latents, k = 32, 65,536 tokens a step; W2 is pythia-160m's shape, all 12
layers, 24,576 latents, 32,768 tokens a step. Means over the steps behind a warm-up; ours is the library's Trainer
with everything on that a run has (event file, a point every step), the peer its Trainer without Weights & Biases.
Noise is not text: this says nothing about quality.
"""

import argparse
import gc
import io
import tempfile
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sparsify_core import MemmapDataset, SaeConfig, TrainConfig, Trainer
from sparsify_core.events import Metrics, read_events

WORKLOADS: dict[str, dict[str, Any]] = {
    "W1": {"hookpoints": ["layers.15"], "batch_size": 32},
    "W2": {"hookpoints": [f"layers.{i}" for i in range(12)], "batch_size": 16},
    "tiny": {"hookpoints": ["layers.1"], "batch_size": 4},
}
MODES: dict[str, dict[str, Any]] = {
    "signum": {},
    "adam": {"optimizer": "adam"},
    "muon": {"optimizer": "muon"},
    "auxk": {"auxk_alpha": 1 / 32, "dead_feature_threshold": 100_000},
    "transcode": {"sae": {"transcode": True}},
    "skip": {"sae": {"transcode": True, "skip_connection": True}},
    "groupmax": {"sae": {"activation": "groupmax"}},
    "multi_topk": {"sae": {"multi_topk": True}},
    "batchtopk": {"sae": {"activation": "batchtopk"}},
    "ce": {"loss_fn": "ce"},
    "kl": {"loss_fn": "kl"},
}
OURS_ALONE = {"batchtopk"}
WARM_UP = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workload", choices=WORKLOADS)
    parser.add_argument("--modes", nargs="+", choices=MODES, default=["signum"])
    parser.add_argument("--steps", type=int, default=14)
    parser.add_argument("--no_peer", action="store_true")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    lm = build_lm(args.workload, args.device)
    name = torch.cuda.get_device_name() if args.device == "cuda" else "CPU"
    print(f"{name}, torch {torch.__version__}, {args.workload}, {args.steps} steps, {WARM_UP} of them warm-up")
    for mode in args.modes:
        with tempfile.TemporaryDirectory() as folder:
            compare(args.workload, mode, lm, Path(folder), args.steps, with_peer=not args.no_peer)


def compare(workload: str, mode: str, lm: nn.Module, folder: Path, steps: int, *, with_peer: bool) -> None:
    values = {**WORKLOADS[workload], **MODES[mode]}
    sae = {"expansion_factor": 32, "k": 32, **values.pop("sae", {})}
    if sae.get("transcode"):
        values["hookpoints"] = [f"{name}.mlp" for name in values["hookpoints"]]
    ctx_len = 32 if workload == "tiny" else 2048
    tokens = folder / "tokens.bin"
    ids = torch.randint(lm.config.vocab_size, (steps * values["batch_size"], ctx_len), dtype=torch.int32)
    ids.numpy().astype("uint16").tofile(tokens)
    end_to_end = "loss_fn" in values
    runs: dict[str, Callable[..., tuple[list[float], float]]] = {"ours": run_ours, "peer": run_peer}
    if not with_peer or mode in OURS_ALONE:
        del runs["peer"]
    mean_ms = {}
    for who, run in runs.items():
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        times, fvu = run(lm if end_to_end else lm.base_model, tokens, ctx_len, sae, values, folder / who)
        # Ours reads a step's numbers while the next one runs, so single intervals say little.
        intervals = len(times) - WARM_UP
        mean_ms[who] = 1e3 * (times[-1] - times[WARM_UP - 1]) / intervals
        peak = torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else 0.0
        per_s = values["batch_size"] * ctx_len / mean_ms[who] * 1e3
        print(
            f"{workload} {mode:10s} {who:5s} {mean_ms[who]:8.2f} ms, mean of {intervals} steps {per_s:12,.0f} tok/s  "
            f"peak {peak:5.1f} GiB  last loss {fvu:.4f}",
            flush=True,
        )
    if "peer" in mean_ms:
        print(f"{workload} {mode:10s} ratio {mean_ms['peer'] / mean_ms['ours']:.2f}x", flush=True)


def run_ours(
    lm: nn.Module, tokens: Path, ctx_len: int, sae: dict[str, Any], values: dict[str, Any], folder: Path
) -> tuple[list[float], float]:
    """When each step was reported, in seconds, and the last training loss."""
    config = TrainConfig(SaeConfig(**sae), **values, eval_tokens=0, save_every=10**6, save_dir=str(folder))
    trainer = Trainer(config, MemmapDataset(tokens, ctx_len), lm)
    trainer.fit()
    points = [e for e, _ in read_events(trainer.run_dir.events(1)) if isinstance(e, Metrics)]
    last = points[-1].values
    return [point.ts for point in points], next(v for k, v in last.items() if k.startswith(("fvu/", "ce_", "kl_")))


def run_peer(
    lm: nn.Module, tokens: Path, ctx_len: int, sae: dict[str, Any], values: dict[str, Any], folder: Path
) -> tuple[list[float], float]:
    """The same of the peer: its progress bar is replaced by a clock, nothing else."""
    import sparsify.trainer
    from sparsify import SaeConfig as PeerSaeConfig
    from sparsify import TrainConfig as PeerTrainConfig
    from sparsify.data import MemmapDataset as PeerDataset

    times: list[float] = []

    class Clock:
        def __init__(self, *args: Any, **kwargs: Any) -> None: ...

        def update(self) -> None:
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            times.append(time.perf_counter())

        def close(self) -> None: ...

    sparsify.trainer.tqdm = Clock
    config = PeerTrainConfig(PeerSaeConfig(**sae), **values, log_to_wandb=False, save_every=10**6, save_dir=str(folder))
    with redirect_stdout(io.StringIO()):
        sparsify.trainer.Trainer(config, PeerDataset(tokens, ctx_len), lm).fit()
    return times, float("nan")


def build_lm(workload: str, device: str) -> Any:
    """A causal language model with random weights."""
    import transformers

    torch.manual_seed(0)
    if workload == "W2":
        config: Any = transformers.GPTNeoXConfig(
            hidden_size=768,
            num_hidden_layers=12,
            num_attention_heads=12,
            intermediate_size=3072,
            vocab_size=50304,
            max_position_embeddings=2048,
            rotary_pct=0.25,
        )
    else:
        small = workload == "tiny"
        config = transformers.LlamaConfig(
            hidden_size=72 if small else 576,
            num_hidden_layers=2 if small else 30,
            num_attention_heads=9,
            num_key_value_heads=3,
            intermediate_size=96 if small else 1536,
            vocab_size=512 if small else 49152,
            max_position_embeddings=8192,
            rms_norm_eps=1e-5,
            tie_word_embeddings=True,
        )
    with torch.device(device):
        model = transformers.AutoModelForCausalLM.from_config(config)
    return model.to(torch.bfloat16 if device == "cuda" else torch.float32).eval()


if __name__ == "__main__":
    main()
