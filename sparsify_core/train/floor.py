"""The floor of a step: what its arithmetic and its memory traffic take at the device's peak rates, part by part.

Counted in bfloat16 and without what is small beside it (biases, activations written once, AuxK, the skip connection),
so a step can come near its floor but not below it; only tokens that are excluded by their id count as if they were
trained on. Nothing is guessed: devices without known rates have no floor.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from sparsify_core.capture.forward import ActivationTap
from sparsify_core.config import RunConfig, SparseCoderConfig
from sparsify_core.parts import Part
from sparsify_core.train.adam import resolve_bits
from sparsify_core.train.distributed import Group
from sparsify_core.train.units import Unit


@dataclass(frozen=True)
class Peak:
    """What a device can do: bfloat16 operations, bytes of memory and of its L2 cache per second; bytes in that cache.

    `cache` 0: the rate is not known, and what stays in the cache is not counted.
    """

    operations: float
    memory: float
    cache: float = 0.0
    cache_size: float = 0.0


PEAKS = {
    "NVIDIA H100 80GB HBM3": Peak(781e12, 3.02e12, cache=7.8e12, cache_size=50e6),  # measured
    # nominal
    "NVIDIA H200": Peak(989e12, 4.8e12, cache_size=50e6),
    "NVIDIA A100-SXM4-80GB": Peak(312e12, 2.04e12, cache_size=40e6),
    "NVIDIA A100 80GB PCIe": Peak(312e12, 1.94e12, cache_size=40e6),
    "NVIDIA A100-SXM4-40GB": Peak(312e12, 1.56e12, cache_size=40e6),
    "NVIDIA A100-PCIE-40GB": Peak(312e12, 1.56e12, cache_size=40e6),
}
"""By the name that CUDA gives the device."""

_STATE_BYTES = {"signum": 18, "muon": 18, "adam": 26}
"""Per parameter and step: weight and optimizer state in float32, read and written, and the weight's bfloat16 copy."""
_ADAM_8_BIT_BYTES = 14


@dataclass(frozen=True)
class Floor:
    """The floor of one process's step.

    Args:
        lm_operations: of the language model's forward, per step.
        num_tokens: that the coders of this process train on in a step.
        state_bytes: that the optimizer moves per parameter.
        widening: active latents that are decoded, in multiples of k.
    """

    peak: Peak
    lm_operations: float
    num_tokens: float
    state_bytes: int
    widening: int = 1

    def milliseconds(self, units: Sequence[Unit]) -> dict[Part, float]:
        """By part, at the k that the coders have now."""
        found: dict[Part, float] = {"lm": 1e3 * self.lm_operations / self.peak.operations}
        for unit in units:
            for part, seconds in self._coder(unit).items():
                found[part] = found.get(part, 0.0) + 1e3 * seconds
        return found

    def _coder(self, unit: Unit) -> dict[Part, float]:
        coder, peak, tokens = unit.coder, self.peak, self.num_tokens
        num_rows = tokens * min(self.widening * coder.k, coder.num_latents)
        decoder_bytes = 2 * coder.W_dec.numel()
        if decoder_bytes > peak.cache_size:
            decode = 2 * num_rows * coder.d_out / peak.memory
        else:  # every row is fetched once and read from the cache
            decode = max(decoder_bytes / peak.memory, self._from_cache(2 * num_rows * coder.d_out))
        # A row of the input and one of the residual for every active latent; blocks of tokens can stay in the cache.
        widths = coder.d_in + coder.d_out
        return {
            "encode": 2 * tokens * coder.num_latents * coder.d_in / peak.operations,
            "decode": decode,
            "backward": max(2 * tokens * widths / peak.memory, self._from_cache(2 * num_rows * widths)),
            "optimizer": self.state_bytes * sum(p.numel() for p in coder.parameters()) / peak.memory,
        }

    def _from_cache(self, num_bytes: float) -> float:
        return num_bytes / self.peak.cache if self.peak.cache else 0.0


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
        state_bytes=_ADAM_8_BIT_BYTES if uses_8_bits else _STATE_BYTES[config.optimizer],
        widening=_widening(config.sae),
    )
    return lambda: floor.milliseconds(units)


def _widening(sae: SparseCoderConfig) -> int:
    if not sae.multi_topk:
        return 1
    return 4 if sae.activation == "topk" else 5  # the k largest are among the 4k largest


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
