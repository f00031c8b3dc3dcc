"""Milliseconds per optimizer step from a cache of activations, against the live model in the same process.

    python -m benchmarks.train_cached --steps 60 --folder /tmp/somewhere

W1: SmolLM2-135M's shape with random weights on random tokens, layers.15, 18,432 latents, k = 32, 65,536 tokens a step.
`live` runs the model, `write` fills the cache (its time is printed apart) and trains from it, `read` finds it there:
from the page cache where memory suffices, so it shows what the reader costs, not the disk.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaModel

from sparsify_core import MemmapDataset, SaeConfig, TrainConfig, Trainer
from sparsify_core.events import Metrics, Phase, read_events

WARM_UP = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--folder", type=Path, default=None, help="where the cache lies while this runs")
    parser.add_argument("--small", action="store_true", help="a model for a CPU")
    args = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    batch_size, ctx_len, width = (4, 128, 72) if args.small else (32, 2048, 576)
    lm = build_lm(width, num_layers=4 if args.small else 30, device=device)
    name = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    print(f"{name}, torch {torch.__version__}, {args.steps} steps, {WARM_UP} of them warm-up")
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        tokens = Path(folder, "tokens.bin")
        torch.randint(32_000, (args.steps * batch_size, ctx_len)).numpy().astype("uint16").tofile(tokens)
        values: dict[str, Any] = {
            "batch_size": batch_size,
            "hookpoints": [f"layers.{2 if args.small else 15}"],
            "eval_tokens": 0,
            "save_every": 10**6,
            "save_dir": folder,
        }
        for run in ("live", "write", "read"):
            cache = None if run == "live" else str(Path(folder, "cache"))
            config = TrainConfig(SaeConfig(k=32), run_name=run, cache_activations=cache, **values)
            trainer = Trainer(config, MemmapDataset(tokens, ctx_len), lm)
            trainer.fit()
            report(run, [event for event, _ in read_events(trainer.run_dir.events(1))], batch_size * ctx_len)


def report(run: str, events: list[Any], tokens_per_step: int) -> None:
    times = [event.ts for event in events if isinstance(event, Metrics)]
    step_s = (times[-1] - times[WARM_UP - 1]) / (len(times) - WARM_UP)
    print(f"{run:5s} {1e3 * step_s:8.2f} ms a step  {tokens_per_step / step_s:12,.0f} tok/s", flush=True)
    writing = [event for event in events if isinstance(event, Phase) and event.name == "caching activations"]
    if writing:
        seconds = writing[-1].ts - writing[0].ts
        print(f"      {writing[0].detail}, written in {seconds:.1f} s", flush=True)


def build_lm(width: int, *, num_layers: int, device: str) -> LlamaModel:
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=width,
        num_hidden_layers=num_layers,
        num_attention_heads=9,
        num_key_value_heads=3,
        intermediate_size=width * 8 // 3,
        vocab_size=49152,
        max_position_embeddings=8192,
    )
    with torch.device(device):
        model = LlamaModel(config)
    return model.to(torch.bfloat16 if device == "cuda" else torch.float32).eval()


if __name__ == "__main__":
    main()
