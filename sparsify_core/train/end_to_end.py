"""Training through the language model: its outputs at all hookpoints are replaced by reconstructions at once."""

from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor, nn

from sparsify_core.capture.splice import Splice
from sparsify_core.config import RunConfig
from sparsify_core.model.token_loss import cross_entropy_sum, kl_sum
from sparsify_core.timing import Span
from sparsify_core.train.step import StepSums
from sparsify_core.train.units import Unit


class EndToEnd:
    """The losses ce and kl of a causal language model with coders spliced in.

    Excluded positions keep what the module returned, with its graph, so the gradient is that of what was computed
    (upstream cuts it there). All predicted tokens count for the loss, those of excluded positions too. The FVU that is
    logged compares with the module's output in the spliced model, where earlier reconstructions have changed it.

    With several seeds, each has its own forward, in which all of its coders are spliced.

    Args:
        lm: frozen, with its head.
        units: their hookpoints in any order; every seed has one at each.
    """

    def __init__(self, config: RunConfig, lm: nn.Module, units: list[Unit]) -> None:
        self._uses_kl = config.loss_fn == "kl"
        by_hookpoint: dict[str, list[str]] = {}
        for unit in units:
            by_hookpoint.setdefault(unit.hookpoint, []).append(unit.name)
        self._seeds = [
            dict(zip(by_hookpoint, names, strict=True)) for names in zip(*by_hookpoint.values(), strict=True)
        ]
        self._splice = Splice(lm, list(by_hookpoint), needs_inputs=config.sae.transcode)

    def close(self) -> None:
        """Take the hooks off the model."""
        self._splice.close()

    def add(self, sums: Mapping[str, StepSums], input_ids_BL: Tensor, kept: Tensor | None) -> None:
        """Forward and backward on one batch.

        Args:
            sums: by name of the coder.
            kept: the rows (of B * L) to splice; None means all.
        """
        clean_BLV = None
        if self._uses_kl:
            with torch.no_grad():
                clean_BLV = self._splice.logits(input_ids_BL, None)
        for names in self._seeds:
            spliced = {hookpoint: sums[name] for hookpoint, name in names.items()}
            logits_BLV = self._splice.logits(input_ids_BL, partial(_reconstruct, spliced, kept))
            if clean_BLV is None:
                loss, num_tokens = cross_entropy_sum(logits_BLV, input_ids_BL), input_ids_BL[:, 1:].numel()
            else:
                loss, num_tokens = kl_sum(logits_BLV, clean_BLV), input_ids_BL.numel()
            with Span("backward"):
                loss.backward()  # type: ignore[no-untyped-call]
            for coder_sums in spliced.values():
                coder_sums.add_token_loss(loss.detach(), num_tokens)


def _reconstruct(
    spliced: Mapping[str, StepSums], kept: Tensor | None, hookpoint: str, x_ND: Tensor, y_NE: Tensor
) -> Tensor:
    """The rows (N, E) that take the place of `y_NE`."""
    sums = spliced[hookpoint]
    if kept is None:
        return sums.reconstruct(x_ND, y_NE)
    return y_NE.index_copy(0, kept, sums.reconstruct(x_ND[kept], y_NE[kept]))
