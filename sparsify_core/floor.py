"""The floor of a step: what its arithmetic and its memory traffic take at the device's peak rates, part by part.

Counted in bfloat16 and without what is small beside it (biases, activations written once, AuxK, the skip connection),
so a step can come near its floor but not below it; only tokens that are excluded by their id count as if they were
trained on. Nothing is guessed: devices without known rates have no floor. Torch-free.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from sparsify_core.config import SparseCoderConfig
from sparsify_core.parts import Part
from sparsify_core.sizes import CoderSize


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

STATE_BYTES = {"signum": 18, "muon": 18, "adam": 26}
"""Per parameter and step: weight and optimizer state in float32, read and written, and the weight's bfloat16 copy."""
ADAM_8_BIT_BYTES = 14


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

    def milliseconds(self, coders: Iterable[CoderSize]) -> dict[Part, float]:
        """By part."""
        found: dict[Part, float] = {"lm": 1e3 * self.lm_operations / self.peak.operations}
        for coder in coders:
            for part, seconds in self._coder(coder).items():
                found[part] = found.get(part, 0.0) + 1e3 * seconds
        return found

    def _coder(self, coder: CoderSize) -> dict[Part, float]:
        peak, tokens = self.peak, self.num_tokens
        num_rows = tokens * min(self.widening * coder.k, coder.num_latents)
        decoder_bytes = 2 * coder.num_latents * coder.d_out
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
            "optimizer": self.state_bytes * coder.num_parameters / peak.memory,
        }

    def _from_cache(self, num_bytes: float) -> float:
        return num_bytes / self.peak.cache if self.peak.cache else 0.0


def widening(sae: SparseCoderConfig) -> int:
    """Active latents that a step decodes, in multiples of k."""
    if not sae.multi_topk:
        return 1
    return 4 if sae.activation == "topk" else 5  # the k largest are among the 4k largest
