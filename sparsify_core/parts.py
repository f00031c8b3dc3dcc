"""The parts of an optimizer step whose time is measured (`sparsify_core.timing`), as people read them."""

from dataclasses import dataclass
from typing import Literal

Part = Literal["data", "lm", "encode", "select", "decode", "backward", "optimizer", "communication", "other"]


@dataclass(frozen=True)
class PartInfo:
    """A part's name for tables, and what it consists of."""

    label: str
    help: str


PARTS: dict[Part, PartInfo] = {
    "data": PartInfo("Data wait", "Waiting for token ids, or for cached activations, and copying them to the device."),
    "lm": PartInfo("Language model", "Forward of the language model, as far as the hookpoints need it."),
    "encode": PartInfo("Encode", "The encoders' matrix products: pre-activations of all latents."),
    "select": PartInfo("Select", "Choosing the active latents of each token."),
    "decode": PartInfo("Decode", "Reconstructions from the active latents, and their errors; AuxK's too."),
    "backward": PartInfo("Backward", "Gradients; with loss ce or kl through the language model too."),
    "optimizer": PartInfo("Optimizer", "The step of the optimizer, and unit norm for the decoders' rows."),
    "communication": PartInfo("Communication", "Sums over, and activations from, the other processes, with the wait."),
    "other": PartInfo(
        "Other",
        "What belongs to no other part: variances, counts of firing latents, conversions, the loss of predictions.",
    ),
}
"""In the order of a step."""

WARM_UP_STEPS = 5
"""Of an attempt: they compile kernels and fill caches, and are never measured. The step behind them is, at once."""
