"""Logits of a causal language model, read from its hidden states for a few tokens at a time.

The logits of all tokens are the largest tensor of a step by far: 6 GiB in bfloat16 for 65,536 tokens and 49,152 words.
"""

from typing import Any

import torch
from torch import Tensor, nn

from sparsify_core.capture.forwards import exchanged_forwards
from sparsify_core.timing import Span

PROBE_ERRORS = (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError)
"""What a model may raise in a trial that cuts its forward up."""


class Readout:
    """What a causal language model does behind its base model, by its own forward: scales and soft caps count.

    A trial on a few tokens decides whether the model can be cut there. Where the logits are not the same to the bit,
    the states are the logits themselves, of all tokens, and `logits` returns what it is given.

    Args:
        lm: frozen, with its head.
    """

    def __init__(self, lm: nn.Module) -> None:
        self._lm: Any = lm
        self._base: Any = lm.base_model
        self._output_type: Any = None
        self._output_type = self._type_if_it_can_be_cut()

    @Span("lm")
    def states(self, input_ids_BL: Tensor) -> Tensor:
        """One forward: (B, L, D) in the model's dtype, from which `logits` reads."""
        if self._output_type is None:
            logits: Tensor = self._lm(input_ids=input_ids_BL, use_cache=False).logits
            return logits
        states: Tensor = self._base(input_ids=input_ids_BL, use_cache=False).last_hidden_state
        return states

    @Span("lm")
    def logits(self, states_ND: Tensor) -> Tensor:
        """(N, V), differentiable in `states_ND`, any number of tokens of what `states` returned."""
        if self._output_type is None:
            return states_ND
        return self._read(self._output_type, states_ND[None])[0]

    def _read(self, output_type: Any, states_BLD: Tensor) -> Tensor:
        output = output_type(last_hidden_state=states_BLD)
        ids_BL = torch.zeros(states_BLD.shape[:2], dtype=torch.int64, device=states_BLD.device)
        with exchanged_forwards({self._base: lambda *_, **__: output}):
            logits: Tensor = self._lm(input_ids=ids_BL, use_cache=False).logits
        return logits

    @torch.no_grad()
    def _type_if_it_can_be_cut(self) -> Any:
        ids_BL = probe_ids(self._lm)
        logits_BLV = self._lm(input_ids=ids_BL, use_cache=False).logits
        try:
            output = self._base(input_ids=ids_BL, use_cache=False)
            found = self._read(type(output), output.last_hidden_state)
        except PROBE_ERRORS:
            return None
        return type(output) if torch.equal(found, logits_BLV) else None


def probe_ids(model: Any) -> Tensor:
    """(1, 4) token ids for a trial, on the model's device."""
    return torch.arange(4, device=model.get_input_embeddings().weight.device)[None]
