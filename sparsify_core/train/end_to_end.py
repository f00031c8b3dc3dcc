"""Training through the language model: its outputs at all hookpoints are replaced by reconstructions at once."""

from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor, nn

from sparsify_core.capture.prefix import run_once, shared_layers
from sparsify_core.capture.readout import Readout
from sparsify_core.capture.splice import Splice
from sparsify_core.config import RunConfig
from sparsify_core.model.token_loss import cross_entropy_sum, kl_sum
from sparsify_core.timing import Span
from sparsify_core.train.step import StepSums
from sparsify_core.train.units import Unit, read_as_they_are


class EndToEnd:
    """The losses ce and kl of a causal language model with coders spliced in.

    Excluded positions keep what the module returned, with its graph, so the gradient is that of what was computed
    (upstream cuts it there). All predicted tokens count for the loss, those of excluded positions too. The FVU that is
    logged compares with the module's output in the spliced model, where earlier reconstructions have changed it.

    With several seeds, each has its own forward, in which all of its coders are spliced. The layers below the first
    hookpoint run once per batch, for all of these forwards and the clean one.

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
        base: nn.Module = lm.base_model  # type: ignore[assignment]
        hookpoints = list(by_hookpoint)
        needs_inputs = config.sae.transcode
        keeps_dtype = read_as_they_are(units, next(lm.parameters()).dtype)
        self._readout = Readout(lm)
        self._shared = shared_layers(base, hookpoints, needs_inputs=needs_inputs)
        self._splice = Splice(lm, hookpoints, needs_inputs=needs_inputs, keeps_dtype=keeps_dtype)

    def close(self) -> None:
        """Take the hooks off the model."""
        self._splice.close()

    def add(self, sums: Mapping[str, StepSums], input_ids_BL: Tensor, kept: Tensor | None) -> None:
        """Forward and backward on one batch.

        Args:
            sums: by name of the coder.
            kept: the rows (of B * L) to splice; None means all.
        """
        with run_once(self._shared):
            clean_BLD = None
            if self._uses_kl:
                with torch.no_grad():
                    clean_BLD = self._readout.states(input_ids_BL)
            for names in self._seeds:
                spliced = {hookpoint: sums[name] for hookpoint, name in names.items()}
                self._add_seed(spliced, input_ids_BL, kept, clean_BLD)

    def _add_seed(
        self, spliced: Mapping[str, StepSums], input_ids_BL: Tensor, kept: Tensor | None, clean_BLD: Tensor | None
    ) -> None:
        """One spliced forward, and its backward. `spliced`: by hookpoint. `clean_BLD`: for kl."""
        with self._splice.replacing(partial(_reconstruct, spliced, kept)):
            states_BLD = self._readout.states(input_ids_BL)
        if clean_BLD is None:
            loss = cross_entropy_sum(states_BLD, input_ids_BL, self._readout.logits)
            num_tokens = input_ids_BL[:, 1:].numel()
        else:
            loss, num_tokens = kl_sum(states_BLD, clean_BLD, self._readout.logits), input_ids_BL.numel()
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
    return y_NE.index_copy(0, kept, sums.reconstruct(x_ND[kept], y_NE[kept]).to(y_NE.dtype))
