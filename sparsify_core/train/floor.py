"""The floor of this process's step (`sparsify_core.floor`): its model's operations, counted, and its device's rates."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch.utils.flop_counter import FlopCounterMode

from sparsify_core.capture.forward import ActivationTap
from sparsify_core.config import RunConfig
from sparsify_core.floor import ADAM_8_BIT_BYTES, PEAKS, STATE_BYTES, Floor, widening
from sparsify_core.parts import Part
from sparsify_core.train.adam import resolve_bits
from sparsify_core.train.distributed import Group
from sparsify_core.train.units import Unit

_ATTENTION = (
    torch.ops.aten._scaled_dot_product_flash_attention,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu,
    torch.ops.aten._scaled_dot_product_efficient_attention,
    torch.ops.aten._scaled_dot_product_cudnn_attention,
)


def build_floor(
    config: RunConfig, tap: ActivationTap, units: Sequence[Unit], group: Group, *, length: int
) -> Callable[[], dict[Part, float]] | None:
    """What gives the floor of a step now; None where it cannot be told: on other devices, and with the losses ce and
    kl, whose backward goes through the language model.

    Args:
        length: tokens of a sequence.
    """
    device = group.device
    peak = PEAKS.get(torch.cuda.get_device_name(device)) if device.type == "cuda" else None
    if peak is None or config.loss_fn != "fvu":
        return None
    sequences = config.batch_size * config.grad_acc_steps
    uses_8_bits = config.optimizer == "adam" and resolve_bits(config, device) == 8
    floor = Floor(
        peak,
        lm_operations=0.0 if config.cache_activations else sequences * lm_operations(tap, device, length),
        num_tokens=sequences * (length - config.exclude_first) * (group.world_size if config.distribute_modules else 1),
        state_bytes=ADAM_8_BIT_BYTES if uses_8_bits else STATE_BYTES[config.optimizer],
        widening=widening(config.sae),
    )
    return lambda: floor.milliseconds(unit.coder.size for unit in units)


def lm_operations(tap: ActivationTap, device: torch.device, length: int) -> float:
    """Operations of the language model on one sequence of `length` tokens, as far as the hookpoints need it; of fused
    attention the causal half.
    """
    counter = FlopCounterMode(display=False, custom_mapping=dict.fromkeys(_ATTENTION, _attention_operations))
    with torch.compiler.set_stance("force_eager"), counter:
        tap.run(torch.zeros(1, length, dtype=torch.int64, device=device), lambda *_: None)
    counts = counter.get_flop_counts().get("Global", {})
    return causal_operations({str(operation): count for operation, count in counts.items()})


def _attention_operations(
    query_shape: torch.Size, key_shape: torch.Size, value_shape: torch.Size, *_args: object, **_options: object
) -> int:
    """PyTorch's own count refuses queries that share keys and values."""
    batch, heads, length, width = query_shape
    return 2 * batch * heads * length * key_shape[-2] * (width + value_shape[-1])


def causal_operations(counts: Mapping[str, int]) -> float:
    """The sum of operations by name, with the half of fused attention that a causal mask leaves."""
    return sum(count / 2 if "attention" in name else count for name, count in counts.items())
