"""Run the whole language model with the outputs of its hookpoints replaced."""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from sparsify_core.capture.rows import first_input, first_output, token_rows
from sparsify_core.timing import Span

Replacement = Callable[[str, Tensor, Tensor], Tensor]
"""Called with a hookpoint's name, the module's input (N, D) and output (N, E): float32 with their graph, a row per
token. Returns (N, E) to take the output's place."""


class Splice:
    """Forward hooks on some modules of a frozen causal language model; outside of `logits` they do nothing.

    Every module runs as it is, and what it returns is exchanged behind it: nothing of the model is modified (upstream
    puts nn.Identity in the place of modules for good). Modules may be called with keyword arguments; of a tuple only
    element 0 is exchanged. As in `ActivationTap`, a module's first call in a forward counts.

    Args:
        lm: with its head; hookpoints are named below its base model.
        needs_inputs: whether the replacement looks at the module's input; otherwise it is given the output twice.
    """

    def __init__(self, lm: nn.Module, hookpoints: Sequence[str], *, needs_inputs: bool) -> None:
        self._lm = lm
        self._needs_inputs = needs_inputs
        self._hookpoints = tuple(hookpoints)
        self._waiting: set[str] = set()
        self._replacement: Replacement | None = None
        base: Any = lm.base_model
        self._handles = [
            base.get_submodule(name).register_forward_hook(self._hook(name), with_kwargs=True) for name in hookpoints
        ]

    def logits(self, input_ids: Tensor, replacement: Replacement | None) -> Tensor:
        """Logits (B, L, V) in the model's dtype for `input_ids` (B, L); of the clean model without a replacement."""
        self._waiting = set(self._hookpoints)
        self._replacement = replacement
        try:
            with Span("lm"):
                logits: Tensor = self._lm(input_ids=input_ids, use_cache=False).logits
            return logits
        finally:
            self._replacement = None

    def close(self) -> None:
        """Take the hooks off the model."""
        for handle in self._handles:
            handle.remove()

    def _hook(self, name: str) -> Callable[..., Any]:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
            if self._replacement is None or name not in self._waiting:
                return output
            self._waiting.discard(name)
            original = first_output(output)
            y_NE = token_rows(original, name, "output").float()
            x_ND = token_rows(first_input(args, kwargs), name, "input").float() if self._needs_inputs else y_NE
            with Span("other"):  # see ActivationTap
                spliced = self._replacement(name, x_ND, y_NE).to(original.dtype).view_as(original)
            return (spliced, *output[1:]) if isinstance(output, tuple) else spliced

        return hook
