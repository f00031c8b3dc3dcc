"""One end-to-end step on a small language model, with coders that have random weights everywhere."""

from typing import Any

import torch
from torch import Tensor, nn

from models import VOCABULARY
from sparsify_core.config import RunConfig
from sparsify_core.train.end_to_end import EndToEnd
from sparsify_core.train.optim import scale_gradients
from sparsify_core.train.placement import place
from sparsify_core.train.step import StepSums
from sparsify_core.train.units import Unit, build_units

CPU = torch.device("cpu")
IDS = torch.arange(32).view(2, 16) * 7 % VOCABULARY
KEPT = torch.tensor([1, 2, 5, 8, 17, 18, 30])


def config_of(loss_fn: str, **changes: Any) -> RunConfig:
    sae = {"num_latents": 48, "k": 4} | {
        name: changes.pop(name) for name in ("transcode", "skip_connection") if name in changes
    }
    return RunConfig.model_validate({"loss_fn": loss_fn, "sae": sae, **changes})


def units_of(config: RunConfig, hookpoints: dict[str, tuple[int, int]]) -> list[Unit]:
    """Untrained coders have zeros that hide mistakes."""
    units = build_units(config, place(config, hookpoints, list(hookpoints), 1).coders, CPU)
    torch.manual_seed(1)
    with torch.no_grad():
        for unit in units:
            for p in unit.coder.parameters():
                p.normal_(std=0.3)
    return units


def gradients(
    config: RunConfig, lm: nn.Module, units: list[Unit], batches: list[tuple[Tensor, Tensor | None]]
) -> tuple[list[Tensor], dict[str, Tensor]]:
    """Token loss and, by name, the gradients after one step that was cut into `batches`."""
    for unit in units:
        unit.coder.zero_grad()
    sums = {unit.name: StepSums(unit, config) for unit in units}
    end_to_end = EndToEnd(config, lm, units)
    for ids, kept in batches:
        end_to_end.add(sums, ids, kept)
    end_to_end.close()
    losses = []
    for unit in units:
        stats, scale = sums[unit.name].finish()
        scale_gradients(unit.coder, scale)
        losses.append(stats.token_loss)
    grads = {f"{u.name}/{name}": p.grad.clone() for u in units for name, p in u.coder.named_parameters()}
    return losses, grads
