"""Read a run folder of EleutherAI/sparsify (eai-sparsify 1.3.x) with its training state.

```
<run>/config.json         its configuration, hookpoints resolved
<run>/state.pt            {"global_step": batches}
<run>/rank_0_state.pt     {"num_tokens_since_fired": {coder: int64 (M)}, ...}; under distribute_modules one per process
<run>/optimizer_0.pt      state_dict of adam, signum or muon; optimizer_1.pt is muon's adam
<run>/<coder>/            cfg.json and sae.safetensors (sparsify_core.formats.sparsify)
```

The .pt files are pickles. They are read with `weights_only`: that builds tensors, numbers and containers, and runs no
code.
"""

import json
import pickle
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sparsify_core.errors import CheckpointError
from sparsify_core.formats.upstream_config import settled
from sparsify_core.model.coder import SparseCoder

_SETTLED: dict[str, Any] = {
    "finetune": None,
    "resume": False,
    "log_to_wandb": False,
    "wandb_log_frequency": 1,
}
"""Fields that have had their effect, or that would act on the next start."""

_STATES = {"signum": ("z",), "adam": ("exp_avg", "exp_avg_sq", "step")}
"""What each optimizer keeps for a parameter. Not muon's: it was given its parameters as a set, whose order is lost."""

_NUMBERS = ("lr_max", "weight_sum", "k")


@dataclass(frozen=True)
class UpstreamState:
    """Training state of the coders asked for, on the CPU.

    Args:
        num_steps: optimizer steps; state.pt counts batches, in the middle of a run one too few.
        num_ranks: processes that saved counters: all of them under distribute_modules, else one.
        tokens_since_fired: coder -> int64 (M), tokens of one process.
        optimizer: `coder/parameter/key` -> float32, in the shape of the parameter or a scalar.
        numbers: coder -> numbers of its parameter group.
        without_optimizer: coders that neither of these two says anything about.
    """

    num_steps: int
    num_ranks: int
    tokens_since_fired: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    numbers: dict[str, dict[str, float]]
    without_optimizer: list[str]


def read_config(root: Path) -> dict[str, Any]:
    """The values of config.json, as our RunConfig takes them. Raises CheckpointError when `root` is no such run."""
    for name in ("config.json", "state.pt"):
        if not (root / name).is_file():
            raise CheckpointError(f"{root} is not a run of sparsify: it has no {name}")
    with _reading(root / "config.json"):
        values = dict(json.loads((root / "config.json").read_text(encoding="utf-8")))
        if not values["hookpoints"] or not values["init_seeds"] or not values["sae"]["k"]:
            raise ValueError("it is not resolved")
    return {**settled({**values, "hf_token": None}), **_SETTLED}


def read_state(root: Path, optimizer: str, coders: Mapping[str, SparseCoder]) -> UpstreamState:
    """Training state of `coders`, which hold upstream's weights.

    Raises CheckpointError when a file is missing, damaged, or does not fit the coders, and before the first step.
    """
    ranks = [_load(path) for path in sorted(root.glob("rank_*_state.pt"))]
    if not ranks:
        raise CheckpointError(f"{root} is not a complete run of sparsify: it has no rank_0_state.pt")
    with _reading(root / "rank_0_state.pt"):
        counters = {name: counts for rank in ranks for name, counts in rank["num_tokens_since_fired"].items()}
        counters = {name: counters[name].reshape(coder.num_latents) for name, coder in coders.items()}
        # Rank 0 alone saves its optimizer, whose groups follow its coders.
        trained = list(ranks[0]["num_tokens_since_fired"])
    path = root / ("optimizer_1.pt" if optimizer == "muon" else "optimizer_0.pt")
    saved = _load(path)
    with _reading(path):
        groups, states = saved["param_groups"], saved["state"]
        steps = [int(numbers.get(key, 0)) for key in ("k", "step") for numbers in [*groups, *states.values()]]
        if not any(steps):
            raise CheckpointError(f"{root} has not made one optimizer step: start the run anew")
        by_coder = dict(zip(trained, groups, strict=True)) if optimizer in _STATES else {}
        tensors = {
            name: _of_coder(coder, by_coder[name]["params"], states, _STATES[optimizer])
            for name, coder in coders.items()
            if name in by_coder
        }
        covered = [name for name in tensors if tensors[name]]
        numbers = {name: {key: by_coder[name][key] for key in _NUMBERS if key in by_coder[name]} for name in covered}
    return UpstreamState(
        num_steps=max(steps),
        num_ranks=len(ranks),
        tokens_since_fired=counters,
        optimizer={f"{name}/{key}": tensor for name in covered for key, tensor in tensors[name].items()},
        numbers=numbers,
        without_optimizer=[name for name in coders if name not in covered],
    )


def _of_coder(
    coder: SparseCoder, indices: Sequence[int], states: Mapping[int, Mapping[str, Any]], keys: Sequence[str]
) -> dict[str, Tensor]:
    """`parameter/key` -> tensor in the shape of the parameter or a scalar; empty where a key is missing."""
    found = {}
    for (parameter, p), index in zip(coder.named_parameters(), indices, strict=True):
        state = _widened(states[index])
        for key in keys:
            if key in state:
                value = torch.as_tensor(state[key], dtype=torch.float32)
                found[f"{parameter}/{key}"] = value.reshape(p.shape if value.dim() else ())
    return found if len(found) == len(indices) * len(keys) else {}


def _widened(state: Mapping[str, Any]) -> Mapping[str, Any]:
    """A parameter's state; bitsandbytes' Adam8bit, which upstream prefers where it is installed, as adam's."""
    inner = {**state, **state.get("__bnb_optimizer_quant_state__", {})}
    if "state1" not in inner:
        return state
    return {"step": inner["step"], "exp_avg": _dequantize(inner, 1), "exp_avg_sq": _dequantize(inner, 2)}


def _dequantize(state: Mapping[str, Any], number: int) -> Tensor:
    """code[state] * absmax of its block; small tensors are stored in float32."""
    stored: Tensor = state[f"state{number}"].flatten()
    if stored.dtype != torch.uint8:
        return stored
    absmax: Tensor = state[f"absmax{number}"]
    # The size of blocks is not stored: 256, or 2048 in old versions of bitsandbytes.
    size = 256 if len(absmax) == -(-len(stored) // 256) else 2048
    values: Tensor = state[f"qmap{number}"][stored.long()]
    return values * absmax.repeat_interleave(size)[: len(stored)]


def _load(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise CheckpointError(f"{path.parent} is not a complete run of sparsify: it has no {path.name}")
    with _reading(path):
        return dict(torch.load(path, map_location="cpu", weights_only=True))


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    # torch's own words for a strange pickle advise to load it without precautions: they are not passed on.
    except (
        pickle.UnpicklingError,
        LookupError,
        AttributeError,
        TypeError,
        ValueError,
        RuntimeError,
        EOFError,
        OSError,
    ) as error:
        raise CheckpointError(f"{path} cannot be read as a file of sparsify's: copy the run again") from error
