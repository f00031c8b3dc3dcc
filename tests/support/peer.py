"""EleutherAI's own trainer on a memmap of tokens, in a process of its own."""

import json
from pathlib import Path
from typing import Any

from oracle import Oracle

_PROGRAM = """
import json, sys, types
from pathlib import Path

import torch
from sparsify import SaeConfig, TrainConfig, Trainer  # before the stand-in: accelerate looks for the real one
from sparsify.data import MemmapDataset
from transformers import AutoModelForCausalLM

logged = []
wandb = types.ModuleType("wandb")
wandb.init = lambda **values: None
wandb.log = lambda info, step: logged.append(dict(info))
sys.modules["wandb"] = wandb

model, folder, device, ctx_len, num_threads, cases = *sys.argv[1:4], int(sys.argv[4]), int(sys.argv[5]), sys.argv[6]
torch.set_num_threads(num_threads)
out = {}
for name, values in json.loads(cases).items():
    logged.clear()
    sae, tokens = SaeConfig(**values.pop("sae")), values.pop("tokens")
    config = TrainConfig(sae, log_to_wandb=True, save_dir=folder, run_name=name, **values)
    lm = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).to(device)
    Trainer(config, MemmapDataset(tokens, ctx_len), lm).fit()
    out[name] = list(logged)
Path(folder, "logged.json").write_text(json.dumps(out))
"""

Logged = dict[str, list[dict[str, float]]]


def train_peer(
    oracle: Oracle,
    model: Path,
    folder: Path,
    cases: dict[str, dict[str, Any]],
    *,
    ctx_len: int,
    device: str = "cpu",
    num_threads: int = 1,
) -> Logged:
    """Train each case in float32 into `folder/<name>`. Returns what it logged at every step, by case.

    Args:
        cases: name -> values of its TrainConfig, those of `sae` nested, and `tokens`, a file of uint16 ids.
    """
    oracle.run(_PROGRAM, model, folder, device, ctx_len, num_threads, json.dumps(cases))
    logged: Logged = json.loads((folder / "logged.json").read_text())
    return logged
