"""The demo's preset, for the benchmarks that train it as a user would."""

import argparse
import json
from pathlib import Path
from typing import Any

from server.services.presets import demo_config
from server.settings import Settings
from sparsify_core.demo.__main__ import prepare


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Where the demo lies, and sizes for trying a benchmark with another model."""
    default = Path.home() / ".local/share/sparseboard/demo"
    parser.add_argument("--demo_dir", type=Path, default=default, help="the demo's model and text; made where missing")
    parser.add_argument("--layer", type=int, default=5)
    parser.add_argument("--ctx_len", type=int, default=256)


def preset(args: argparse.Namespace) -> dict[str, Any]:
    """Configuration of the demo run, without evaluation and saving on the way. Prepares model and text."""
    prepare(args.demo_dir)
    config = demo_config(Settings(data_dir=args.demo_dir.parent))
    if config is None or args.demo_dir.name != "demo":
        raise SystemExit(f"--demo_dir {args.demo_dir} must be a folder named demo")
    own = {"hookpoints": [f"layers.{args.layer}"], "ctx_len": args.ctx_len, "eval_tokens": 0, "save_every": 10**6}
    return config | own


def texts(config: dict[str, Any], number: int) -> list[str]:
    """The first texts of the preset's dataset."""
    with open(config["dataset"], encoding="utf-8") as file:
        return [json.loads(line)["text"] for line, _ in zip(file, range(number), strict=False)]
