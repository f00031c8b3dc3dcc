"""Run the language model only as far as the hookpoints need, handing their activations over as they appear."""

from collections.abc import Callable, Collection, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from sparsify_core.capture.rows import first_input, first_output, token_rows
from sparsify_core.errors import HookpointError
from sparsify_core.timing import Span

Consumer = Callable[[str, Tensor, Tensor], None]
"""Called with a hookpoint's name, the module's input (N, D) and output (N, E): detached, a row per token; float32
unless the model's own format was asked for. Where inputs are not needed, both are the same tensor."""


class ActivationSource(Protocol):
    """Where the activations of a batch come from: a hooked model, or a cache on disk."""

    def run(
        self,
        input_ids: Tensor,
        consumer: Consumer,
        *,
        only: Collection[str] | None = None,
        keeps_dtype: bool = False,
    ) -> None:
        """See `ActivationTap.run`."""
        ...


class _EverythingSeen(Exception):  # noqa: N818 - not an error: the way out of the model's forward
    """Raised inside the hook of the last hookpoint: what lies behind it in the model never runs."""


class ActivationTap:
    """Forward hooks on some modules of a frozen model.

    Modules may be called with positional or keyword arguments and may return tuples (element 0 counts). A module that
    is called several times in one forward is taken at its first call.
    """

    def __init__(self, model: nn.Module, hookpoints: Sequence[str], *, needs_inputs: bool) -> None:
        self.model = model
        self._needs_inputs = needs_inputs
        self._waiting: set[str] = set()
        self._consumer: Consumer | None = None
        self._keeps_dtype = False
        self._hookpoints = tuple(hookpoints)
        self._handles = [
            model.get_submodule(name).register_forward_hook(self._hook(name), with_kwargs=True) for name in hookpoints
        ]

    @torch.no_grad()
    def run(
        self,
        input_ids: Tensor,
        consumer: Consumer,
        *,
        only: Collection[str] | None = None,
        keeps_dtype: bool = False,
    ) -> None:
        """One forward on `input_ids` (B, L); the consumer runs inside it, hookpoint by hookpoint, so that only one
        hookpoint's activations need to be alive.

        Args:
            only: the hookpoints that are wanted this time (None: all); the model runs no further than they need.
            keeps_dtype: hand activations over in the model's own format.

        Raises HookpointError when a hookpoint is never called.
        """
        self._waiting = set(self._hookpoints if only is None else only)
        self._consumer = consumer
        self._keeps_dtype = keeps_dtype
        try:
            with Span("lm"):
                self.model(input_ids=input_ids, use_cache=False)
        except _EverythingSeen:
            return
        finally:
            self._consumer = None
        missed = ", ".join(sorted(self._waiting))
        raise HookpointError(f"the model never calls {missed}: choose a hookpoint that its forward pass goes through")

    @property
    def dtype(self) -> torch.dtype:
        """The model's own number format."""
        return next(self.model.parameters()).dtype

    def close(self) -> None:
        """Take the hooks off the model."""
        for handle in self._handles:
            handle.remove()

    def widths(self, device: torch.device) -> dict[str, tuple[int, int]]:
        """(input width, output width) of every hookpoint, by one short forward."""
        found: dict[str, tuple[int, int]] = {}

        def note(name: str, x_ND: Tensor, y_NE: Tensor) -> None:
            found[name] = (x_ND.shape[-1], y_NE.shape[-1])

        self.run(torch.zeros(1, 4, dtype=torch.int64, device=device), note)
        return found

    def _hook(self, name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            if self._consumer is None or name not in self._waiting:
                return
            self._waiting.discard(name)
            y_NE = token_rows(first_output(output), name, "output")
            if not self._keeps_dtype:
                y_NE = y_NE.float()
            x_ND = y_NE
            if self._needs_inputs:
                x_ND = token_rows(first_input(args, kwargs), name, "input")
                x_ND = x_ND if self._keeps_dtype else x_ND.float()
            with Span("other"):  # not the model's, where the consumer has no span of its own
                self._consumer(name, x_ND, y_NE)
            if not self._waiting:
                raise _EverythingSeen

        return hook
